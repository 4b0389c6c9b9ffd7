"""The shared store: objects, node results, layers, images and references."""
