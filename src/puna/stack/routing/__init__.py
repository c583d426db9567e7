"""Which provider answers a request: hard limits first, then its expected price, speed, quality or privacy."""
