"""How near a quantization or an engine is to the model as it was published."""
