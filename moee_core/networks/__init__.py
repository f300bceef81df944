"""ReferenceNet, denoiser, autoencoder: every weight comes from the injected operations."""
