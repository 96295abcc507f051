//! Which plug-ins are there, which are active, and how a new one takes over.
