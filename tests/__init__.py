"""The tests, sorted by what they need: null no device, unit NumPy alone, backend an adapter."""
