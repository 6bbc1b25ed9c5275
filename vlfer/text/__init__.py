"""Words: label sets with their descriptors, and the text embeddings made of them."""
