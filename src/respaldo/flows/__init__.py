"""What users ask for, each from beginning to end: backup, restore, check."""
