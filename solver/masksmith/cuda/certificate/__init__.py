"""The checker on the device."""
