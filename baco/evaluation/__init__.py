"""Full-ranking evaluation: every item that a user does not have yet is ranked."""
