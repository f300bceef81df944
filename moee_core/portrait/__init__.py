"""Pictures in, square portraits and face regions out."""
