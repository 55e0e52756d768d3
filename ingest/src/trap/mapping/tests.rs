//! What files say and what they do.
