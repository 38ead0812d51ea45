"""Quality, fidelity and speed of every engine and quantization, and the report of them."""
