package cbsd

import (
	"os"
	"strings"
	"testing"
)

// What is listed is what fetch_iso takes: cbsd says "No profile found" for
// others.
func TestProfiles(t *testing.T) {
	t.Parallel()
	p := simPool(t)
	const own = "long_description=\"Ours\"\nvm_profile=\"NAME\"\nvm_os_type=\"linux\"\nbhyve_active=1\nfetch=1\n" +
		"iso_site=\"http://mirror.invalid/\"\niso_img=\"NAME.raw\"\nsha256sum=\"1\"\nis_cloud=1\n"
	for name, text := range map[string]string{
		"cloud-ours":     own,
		"cloud-lab-tiny": own, // stands before the one of etc/defaults
		"cloud-off":      strings.Replace(own, "bhyve_active=1", "bhyve_active=0", 1),
		"cloud-unsaid":   strings.Replace(own, "bhyve_active=1\n", "", 1),
		"cloud-unsure":   strings.Replace(own, "sha256sum=\"1\"", "sha256sum=\"0\"", 1),
		"cloud-away":     strings.Replace(own, "fetch=1", "fetch=0", 1),
		"cloud-cd":       strings.Replace(own, "is_cloud=1", "is_cloud=0", 1),
	} {
		text = strings.ReplaceAll(text, "NAME", name)
		if err := os.WriteFile(p.path("etc", "vm-linux-"+name+".conf"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	list, err := p.Profiles(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]Profile)
	for _, pr := range list {
		got[pr.Name] = pr
	}
	for _, name := range []string{"cloud-off", "cloud-unsaid", "cloud-unsure", "cloud-away"} {
		if _, ok := got[name]; ok {
			t.Errorf("%s is listed", name)
		}
	}
	if !got["cloud-ours"].Cloud || got["cloud-lab-tiny"].Title != "Ours" {
		t.Errorf("got %+v and %+v", got["cloud-ours"], got["cloud-lab-tiny"])
	}
	if cd, ok := got["cloud-cd"]; !ok || cd.Cloud {
		t.Errorf("a profile with is_cloud=0: %v, %+v", ok, cd)
	}
}
