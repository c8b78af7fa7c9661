"""What learned policies do, and what rewards want."""
