"""SimZSS: captions learn to point, from a global and a concept-level contrastive loss."""
