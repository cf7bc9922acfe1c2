"""Pictures restored from measurements: deblurring, inpainting, super-resolution, tomography and magnetic resonance."""
