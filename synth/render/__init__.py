"""From a scene to pixels: cameras, rays and shading."""
