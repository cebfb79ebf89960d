"""What is done to a store as a whole: told, checked, converted, joined."""
