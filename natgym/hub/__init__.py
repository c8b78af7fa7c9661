"""Tasks, networks, strategies and policies on the Hugging Face Hub, with cards of what they are worth."""
