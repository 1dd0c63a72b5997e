"""What a request may hold, one file a family; bad input is refused here and reaches no model."""
