"""From a scene to an image: cameras, ray tracing and shading."""
