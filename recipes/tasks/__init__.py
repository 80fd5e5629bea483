"""Five small tasks with their students: what the search for the smallest model is measured on."""
