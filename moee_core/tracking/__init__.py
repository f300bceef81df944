"""A face in a video as motion: landmarks of a detector, head pose, and coefficients."""
