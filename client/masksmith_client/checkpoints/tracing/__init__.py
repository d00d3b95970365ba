"""Watch a forward pass of a model's own classes: along which axis each parameter is summed over."""
