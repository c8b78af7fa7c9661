"""What names and texts stand for, read without torch, so that flags and their mistakes are quick."""
