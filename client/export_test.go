package client

// Kept is the number of inboxes that c holds.
func Kept(c *Client) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return max(len(c.jobs), len(c.ended))
}
