"""What a face does, frame by frame, apart from who it is: coefficients, and what makes them."""
