"""composefs images: EROFS files that hold only metadata."""
