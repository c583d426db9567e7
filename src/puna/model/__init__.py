"""The Llama 3.1 family: its sizes, its mathematics, its checkpoints in every common layout, and LoRA."""
