package cbsdmq

// An Image is the image of a VM profile: a CD, or the disk of a cloud VM.
type Image struct {
	Profile string `json:"profile"` // the value of vm_os_profile
	OS      string `json:"os"`      // the value of vm_os_type
	Title   string `json:"title,omitempty"`
	Cloud   bool   `json:"cloud"`
	There   bool   `json:"there"`            // it is in the pool
	Volume  bool   `json:"volume,omitempty"` // as a ZFS volume
	Used    bool   `json:"used,omitempty"`   // a VM of the pool was made of it
	Fetch   int64  `json:"fetch,omitempty"`  // bytes to download
	Disk    int64  `json:"disk,omitempty"`   // bytes when it is there; before that, at least
}

// A Store is the room that a pool has for images.
type Store struct {
	Dir  string `json:"dir"`  // the pool's environment
	Host string `json:"host"` // pools with the same are on one machine
	ZFS  bool   `json:"zfs"`
	Free int64  `json:"free"` // bytes
	Size int64  `json:"size"` // bytes
}

// short returns i with texts that a list shows.
func (i Image) short() Image {
	const text = 100
	i.Profile, i.OS, i.Title = cutText(i.Profile, text), cutText(i.OS, text), cutText(i.Title, text)
	return i
}
