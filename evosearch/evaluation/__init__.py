"""What a mask is worth: data, models, scoring and training."""
