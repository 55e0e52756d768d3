//! The journal, the present state, the view
