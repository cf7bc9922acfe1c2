"""Flow matching beside its ancestors: normalising flows, maximum likelihood and diffusion, on equal data."""
