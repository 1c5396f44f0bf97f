package cbsd

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cbsd/cbsdmq"
	"github.com/google/go-cmp/cmp"
)

// barePool is a pool whose workdir has nothing but nc.inventory; its cbsd does nothing.
func barePool(t testing.TB, change ...func(*Config)) *Pool {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "nc.inventory"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	cfg := Config{CBSD: "/bin/true", Workdir: dir, RunDir: filepath.Join(dir, "run")}
	for _, f := range change {
		f(&cfg)
	}
	return openPool(t, cfg)
}

func TestPlan(t *testing.T) {
	p := barePool(t)
	export := p.path("export", "vma.img")
	for name, tt := range map[string]struct {
		job  cbsdmq.Job
		want Plan
	}{
		"change": {
			job:  parseJob("bstart", "jname=vm1", "quiet=1"),
			want: Plan{Command: "bstart", Argv: []string{"bstart", "jname=vm1", "quiet=1"}, Class: Change, Family: bhyve, Verb: Start, Guest: "vm1", Lanes: []string{"vm1"}},
		},
		"order of the body": {
			job:  parseJob("jset", "astart=1", "jname=j1", "ip4_addr=DHCP"),
			want: Plan{Command: "jset", Argv: []string{"jset", "astart=1", "jname=j1", "ip4_addr=DHCP"}, Class: Change, Family: jail, Verb: Set, Guest: "j1", Lanes: []string{"j1"}},
		},
		"words": {
			job:  parseJob("qstop", "noacpi=1", "vm1", "vm2"),
			want: Plan{Command: "qstop", Argv: []string{"qstop", "noacpi=1", "vm1", "vm2"}, Class: Change, Family: qemu, Verb: Stop, Guest: "vm1", Lanes: []string{"vm1", "vm2"}},
		},
		"words of which the first would be lost": {
			job:  parseJob("bstop", "vm1", "vm2"),
			want: Plan{Command: "bstop", Argv: []string{"bstop", "inter=0", "vm1", "vm2"}, Class: Change, Family: bhyve, Verb: Stop, Guest: "vm1", Lanes: []string{"vm1", "vm2"}},
		},
		"read": {
			job:  parseJob("jls", "header=0", "display=jname,jid,ip4_addr,status"),
			want: Plan{Command: "jls", Argv: []string{"jls", "header=0", "display=jname,jid,ip4_addr,status"}, Class: Read, Family: jail, Verb: List},
		},
		"read of a guest": {
			job:  parseJob("bget", "jname=vm1", "mode=quiet", "vm_ram", "vm_cpus"),
			want: Plan{Command: "bget", Argv: []string{"bget", "jname=vm1", "mode=quiet", "vm_ram", "vm_cpus"}, Class: Read, Family: bhyve, Verb: Get, Guest: "vm1", Lanes: []string{"vm1"}},
		},
		"two guests": {
			job:  parseJob("bclone", "new=vm2", "old=vm1"),
			want: Plan{Command: "bclone", Argv: []string{"bclone", "new=vm2", "old=vm1"}, Class: Change, Family: bhyve, Verb: Clone, Guest: "vm1", Lanes: []string{"vm1", "vm2"}},
		},
		"change without a guest": {
			job:  parseJob("images", "mode=register", "name=x"),
			want: Plan{Command: "images", Argv: []string{"images", "mode=register", "name=x"}, Class: Change, Lanes: []string{"!images"}},
		},
		"mode that reads": {
			job:  parseJob("bhyve-dsk", "mode=list", "jname=vm1"),
			want: Plan{Command: "bhyve-dsk", Argv: []string{"bhyve-dsk", "mode=list", "jname=vm1"}, Class: Read, Family: bhyve, Verb: Disk, Guest: "vm1", Lanes: []string{"vm1"}},
		},
		"mode that changes": {
			job:  parseJob("bhyve-dsk", "mode=attach", "jname=vm1", "dsk_controller=virtio-blk", "dsk_size=10g"),
			want: Plan{Command: "bhyve-dsk", Argv: []string{"bhyve-dsk", "mode=attach", "jname=vm1", "dsk_controller=virtio-blk", "dsk_size=10g"}, Class: Change, Family: bhyve, Verb: Disk, Guest: "vm1", Lanes: []string{"vm1"}},
		},
		"an image's path for a guest": {
			job:  parseJob("bimport", "jname="+export, "new_jname=vmi"),
			want: Plan{Command: "bimport", Argv: []string{"bimport", "jname=" + export, "new_jname=vmi"}, Class: Change, Family: bhyve, Verb: Import, Guest: "vmi", Lanes: []string{"vmi"}},
		},
		"help": {
			job:  parseJob("bcreate", "--help"),
			want: Plan{Command: "bcreate", Argv: []string{"bcreate", "--help"}, Class: Read, Family: bhyve},
		},
		"key for QEMU": {
			job:  parseJob("qcreate", "jname=q1", "ci_user_pubkey=ssh-ed25519 AAAAC3Nza+/x= me@example.org"),
			want: Plan{Command: "qcreate", Argv: []string{"qcreate", "jname=q1", "ci_user_pubkey=ssh-ed25519 AAAAC3Nza+/x= me@example.org"}, Class: Change, Family: qemu, Verb: Create, Guest: "q1", Lanes: []string{"q1"}},
		},
		"no terminal": {
			job: parseJob("jstart", "jname=j1", "inter=1"),
			want: Plan{
				Command: "jstart", Argv: []string{"jstart", "jname=j1", "inter=1"}, Class: Change, Family: jail, Verb: Start, Guest: "j1", Lanes: []string{"j1"},
				Warnings: []string{"inter=1 has no effect: commands have no terminal here"},
			},
		},
		"unknown argument of a create command is kept": {
			job: parseJob("bcreate", "jname=vm1", "vm_rma=1g"),
			want: Plan{
				Command: "bcreate", Argv: []string{"bcreate", "jname=vm1", "vm_rma=1g"}, Class: Change, Family: bhyve, Verb: Create, Guest: "vm1", Lanes: []string{"vm1"},
				Warnings: []string{"bcreate has no argument vm_rma; did you mean vm_ram?"},
			},
		},
		"unknown argument like no other": {
			job: parseJob("bstop", "jname=vm1", "reason=maintenance-window"),
			want: Plan{
				Command: "bstop", Argv: []string{"bstop", "jname=vm1", "reason=maintenance-window"}, Class: Change, Family: bhyve, Verb: Stop, Guest: "vm1", Lanes: []string{"vm1"},
				Warnings: []string{"bstop has no argument reason"},
			},
		},
		"family of names": {
			job:  parseJob("bcreate", "jname=vm1", "ci_user_pw_alice=p(ss;word>", "ci_user_pubkey_alice=ssh-ed25519 AAAA+/= alice@example.org"),
			want: Plan{Command: "bcreate", Argv: []string{"bcreate", "jname=vm1", "ci_user_pw_alice=p(ss;word>", "ci_user_pubkey_alice=ssh-ed25519 AAAA+/= alice@example.org"}, Class: Change, Family: bhyve, Verb: Create, Guest: "vm1", Lanes: []string{"vm1"}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := p.Plan(tt.job)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Error(d)
			}
			text, err := json.Marshal(got)
			if err != nil {
				t.Fatal(err)
			}
			var again Plan
			if err := json.Unmarshal(text, &again); err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(got, again); d != "" {
				t.Errorf("as JSON: %s", d)
			}
		})
	}
}

func TestPlanRefuses(t *testing.T) {
	p := barePool(t)
	vm := func(arg string) cbsdmq.Job { return parseJob("bset", "jname=vm1", arg) }
	for name, tt := range map[string]struct {
		job   cbsdmq.Job
		field string
		what  string // part of the message
		hint  string // part of the hint
	}{
		// the command
		"no command":               {parseJob(""), "Command", "not a command", ""},
		"path for a command":       {parseJob("/sbin/reboot"), "Command", "not a command", "without a path"},
		"upward path":              {parseJob("../bin/sh"), "Command", "not a command", ""},
		"shell":                    {parseJob("-c"), "Command", "not a command", ""},
		"two commands":             {parseJob("jls;reboot"), "Command", "not a command", ""},
		"program of the system":    {parseJob("reboot"), "Command", "no command reboot", ""},
		"shell of CBSD":            {parseJob("cbsdsh"), "Command", "no command", ""},
		"misspelt command":         {parseJob("bstrat"), "Command", "no command bstrat", "did you mean bstart?"},
		"not for QEMU":             {parseJob("qrestart"), "Command", "no command qrestart", "nothing like it for those of QEMU"},
		"terminal":                 {parseJob("jlogin", "jname=j1"), "Command", "needs a terminal", "shell on the host"},
		"terminal by its name":     {parseJob("bconstruct-tui"), "Command", "needs a terminal", ""},
		"runs commands":            {parseJob("jexec", "jname=j1"), "Command", "runs other programs", `"jexec"`},
		"queues commands":          {parseJob("task", "mode=new"), "Command", "runs other programs", ""},
		"runs a file":              {parseJob("up", "cbsdfile=/tmp/CBSDfile"), "Command", "runs other programs", ""},
		"module not installed":     {parseJob("service", "mode=action"), "Command", "has no service", "module"},
		"program of the same name": {parseJob("ssh", "mode=on"), "Command", "has no ssh", "module"},

		// characters
		"substitution":                  {vm("tags=$(id)"), "CommandArgs.tags", "character $", "shell"},
		"backtick":                      {vm("tags=`id`"), "CommandArgs.tags", "character `", "shell"},
		"backslash":                     {vm(`tags=a\b`), "CommandArgs.tags", `character \`, "shell"},
		"double quote":                  {vm(`tags=a"b`), "CommandArgs.tags", `character "`, "shell"},
		"tilde":                         {vm("tags=a~b"), "CommandArgs.tags", "character ~", "lose"},
		"pipe":                          {vm("tags=a|b"), "CommandArgs.tags", "character |", "columns"},
		"newline":                       {vm("tags=a\nb"), "CommandArgs.tags", "line break", "one line"},
		"carriage return":               {vm("tags=a\rb"), "CommandArgs.tags", "line break", ""},
		"NUL":                           {vm("tags=a\x00b"), "CommandArgs.tags", "NUL", ""},
		"escape":                        {vm("tags=a\x1b[2J"), "CommandArgs.tags", "U+001B", ""},
		"C1 control":                    {vm("tags=a\u009bb"), "CommandArgs.tags", "U+009B", ""},
		"line separator":                {vm("tags=a\u2028b"), "CommandArgs.tags", "U+2028", ""},
		"invalid UTF-8":                 {vm("tags=a\xff"), "CommandArgs.tags", "UTF-8 at byte 1", ""},
		"password":                      {parseJob("bcreate", "jname=vm1", "ci_user_pw_root=pa$$word"), "CommandArgs.ci_user_pw_root", "character $", ""},
		"semicolon":                     {vm("vm_os_type=linux;reboot"), "CommandArgs.vm_os_type", "character ;", ""},
		"ampersand":                     {vm("cpuset=0&reboot"), "CommandArgs.cpuset", "character &", ""},
		"redirection":                   {vm("cpuset=0>/etc/passwd"), "CommandArgs.cpuset", "character >", ""},
		"single quote":                  {vm("uuid=';reboot;'"), "CommandArgs.uuid", "character '", ""},
		"flags are no shell":            {vm("bhyve_flags=-A;reboot"), "CommandArgs.bhyve_flags", "character ;", ""},
		"files of the host":             {parseJob("media", "mode=list", "path=/etc/*"), "CommandArgs.path", "character * in a path", ""},
		"option":                        {parseJob("bmigrate", "jname=vm1", "node=-oProxyCommand=reboot"), "CommandArgs.node", "begins with a dash", ""},
		"lost in echo":                  {vm("cpuset=-n"), "CommandArgs.cpuset", "is -n", ""},
		"commands of sed":               {parseJob("bcreate", "jname=vm1", "ci_user_pw_root=x;reboot:w /etc/rc.conf.d/x"), "CommandArgs.ci_user_pw_root", "character :", "sed"},
		"sed, in an address":            {parseJob("bcreate", "jname=vm1", "ci_gw4=10.0.0.1#w /etc/x"), "CommandArgs.ci_gw4", "character #", "sed"},
		"column run":                    {parseJob("bls", "display=jname;reboot"), "CommandArgs.display", "list of columns", "jname,status"},
		"column redirected":             {parseJob("bls", "display=jname>/etc/passwd"), "CommandArgs.display", "list of columns", ""},
		"column a program":              {parseJob("qls", "display=jname,../../../../sbin/reboot"), "CommandArgs.display", "list of columns", ""},
		"word a program":                {parseJob("qget", "jname=vm1", "../../../../sbin/reboot"), "words[0]", "not the name of a column", ""},
		"profile a path":                {parseJob("bcreate", "jname=vm1", "vm_os_profile=../../tmp/x"), "CommandArgs.vm_os_profile", "slash", ""},
		"module a path":                 {parseJob("forms", "jname=j1", "module=../../../tmp"), "CommandArgs.module", "slash", ""},
		"command after a space":         {parseJob("qcreate", "jname=q1", "vnc_password=x reboot"), "CommandArgs.vnc_password", "space", "command"},
		"command after a semicolon":     {parseJob("qcreate", "jname=q1", "vnc_password=x;reboot"), "CommandArgs.vnc_password", "character ;", ""},
		"command for a key":             {parseJob("qcreate", "jname=q1", "ci_user_pubkey=ssh-rsa /sbin/reboot"), "CommandArgs.ci_user_pubkey", "space", "command"},
		"command for the middle of one": {parseJob("qcreate", "jname=q1", "ci_user_pubkey=ssh-rsa AAAA;reboot me"), "CommandArgs.ci_user_pubkey", "character ;", ""},
		"argument of a node's command":  {parseJob("bmigrate", "jname=vm1", "node=host2 reboot"), "CommandArgs.node", "space", ""},
		"option of QEMU":                {parseJob("qset", "jname=vm1", "cpu=host -incoming exec:reboot"), "CommandArgs.cpu", "space", "option"},
		"argument in a value of a wrapper": {
			parseJob("bexport", "jname=vm1", "imgname=x dstdir=/etc"), "CommandArgs.imgname", "space", "wrapper bexport",
		},

		"guest in a password":          {parseJob("bcreate", "jname=vm1", "vnc_password= jname=vm2"), "CommandArgs.vnc_password", "begins with a space", "argument"},
		"guest in a list":              {parseJob("jcreate", "jname=j1", "pkglist= jname=j2"), "CommandArgs.pkglist", "begins with a space", ""},
		"files of the host in a text":  {vm("vnc_password=/tmp/*"), "CommandArgs.vnc_password", "character * in a path", "run"},
		"files of the host, in a word": {withWords("service", "/tmp/*"), "Command", "has no service", ""},
		"option in a list":             {parseJob("jcreate", "jname=j1", "sysrc=a=b -f /etc/rc.conf"), "CommandArgs.sysrc", "word that begins with a dash", ""},
		"space by a percent sign":      {vm("vnc_password=x%-s"), "CommandArgs.vnc_password", "character %", "space"},
		"sed puts the match":           {parseJob("bcreate", "jname=vm1", "ci_user_pw_root=a&b"), "CommandArgs.ci_user_pw_root", "character &", "sed"},
		"disk of another guest":        {parseJob("bhyve-dsk", "mode=delete", "jname=vm1", "dsk_path=../vm2-data/dsk1.vhd"), "CommandArgs.dsk_path", "upwards", ""},
		"every row":                    {parseJob("media", "mode=unregister", "name=name", "path=PATH"), "CommandArgs.name", "own column", ""},
		"emulator a path":              {parseJob("jcreate", "jname=j1", "emulator=../../tmp/x"), "CommandArgs.emulator", "slash", ""},

		// names of arguments
		"name with a space":      {parseJob("jset", "jname=j1", "a b=c"), `CommandArgs."a b"`, "not the name of an argument", ""},
		"name that is evaluated": {parseJob("jset", "jname=j1", "$(id)=c"), `CommandArgs."$(id)"`, "not the name of an argument", ""},
		"name with a newline":    {parseJob("jset", "jname=j1", "a\nb=c"), `CommandArgs."a\nb"`, "not the name of an argument", ""},
		"name with a digit":      {parseJob("jset", "jname=j1", "1a=c"), `CommandArgs."1a"`, "not the name of an argument", ""},
		"no name":                {parseJob("jset", "jname=j1", "=c"), `CommandArgs.""`, "not the name of an argument", ""},
		"long name":              {parseJob("jset", "jname=j1", strings.Repeat("a", 300)+"=c"), `CommandArgs."` + strings.Repeat("a", 300) + `"`, "not the name of an argument", "at most 64"},
		"preset":                 {parseJob("jset", "jname=j1", "H_CBSD_astart=1"), "CommandArgs.H_CBSD_astart", "presets", ""},
		"twice":                  {parseJob("jset", "jname=j1", "jname=j2"), "CommandArgs.jname", "twice", ""},
		"misspelt setting":       {vm("vm_rma=1g"), "CommandArgs.vm_rma", "no such argument", "did you mean vm_ram?"},
		"unknown setting":        {vm("colour=blue"), "CommandArgs.colour", "no such argument", ""},
		"misspelt argument":      {parseJob("bstop", "jnam=vm1"), "CommandArgs.jnam", "no such argument", "did you mean jname?"},
		"shell variable":         {parseJob("bcreate", "jname=vm1", "PATH=/tmp"), "CommandArgs.PATH", "variable of CBSD's own", ""},
		"another pool":           {parseJob("bcreate", "jname=vm1", "workdir=/pool2"), "CommandArgs.workdir", "variable of CBSD's own", ""},
		"directory of CBSD":      {parseJob("jcreate", "jname=j1", "subrdir=/tmp"), "CommandArgs.subrdir", "variable of CBSD's own", ""},
		"separator of the shell": {parseJob("qcreate", "jname=q1", "IFS=x"), "CommandArgs.IFS", "variable of CBSD's own", ""},

		// files that CBSD would run
		"configuration": {parseJob("bcreate", "jconf=/tmp/x"), "CommandArgs.jconf", "would run as root", `"bcreate:jconf"`},
		"hypervisor":    {vm("bhyve_cmd=/tmp/x"), "CommandArgs.bhyve_cmd", "would run as root", `"bset:bhyve_cmd"`},
		"hook":          {parseJob("jset", "jname=j1", "exec_master_prestart=/tmp/x"), "CommandArgs.exec_master_prestart", "would run as root", ""},
		"mount helper":  {parseJob("jcreate", "jname=j1", "mnt_start=/tmp/x"), "CommandArgs.mnt_start", "would run as root", ""},
		"editor":        {parseJob("jdescr", "jname=j1", "mode=update", "editor=/sbin/reboot"), "CommandArgs.editor", "would run as root", ""},

		"configuration that is written": {parseJob("bcreate", "jname=vm1", "rcconf=/etc/rc.conf"), "CommandArgs.rcconf", "or write to", `"bcreate:rcconf"`},
		"configuration moved":           {parseJob("bstart", "jname=vm1", "cfg_only=/etc/rc.conf"), "CommandArgs.cfg_only", "or write to", ""},
		"any file":                      {parseJob("merge", "from=/a", "to=/b", "out=/etc/rc.conf"), "CommandArgs.out", "or write to", ""},
		"any file, by sed":              {parseJob("replacewdir", "old=x:y:w/etc/rc.conf", "file0=/tmp/x"), "CommandArgs.file0", "or write to", ""},
		"head of an image to be made":   {parseJob("jexport", "jname=j1", "header_extra=distdir=/tmp"), "CommandArgs.header_extra", "would run as root", ""},
		"head of an image":              {parseJob("jimport", "jname=/tmp/x.img", "new_jname=j1"), "CommandArgs.jname", "whose head CBSD would run", `"jimport:jname"`},
		"modules of others":             {withWords("module", "mode"), "Command", "runs other programs", `"module"`},
		"program of scp":                {withWords("bscp", "-S/tmp/x", "vm1:/x"), "words[0]", "begins with a dash", ""},

		// guests
		"column of every guest":  {parseJob("bremove", "jname=jname"), "CommandArgs.jname", "name of a column", "other guests"},
		"column, in capitals":    {parseJob("bremove", "jname=JNAME"), "CommandArgs.jname", "name of a column", ""},
		"column in a word":       {withWords("bremove", "host_hostname"), "words[0]", "name of a column", ""},
		"column for a new guest": {parseJob("bcreate", "jname=data"), "CommandArgs.jname", "name of a column", ""},
		"column for an import":   {parseJob("bimport", "jname=host_hostname"), "CommandArgs.jname", "name of a column", "new_jname"},
		"program of sed":         {parseJob("brename", "old=a:b:wx", "new=vm2"), "CommandArgs.old", "character :", "sed"},
		"wildcard":               {parseJob("bremove", "jname=*"), "CommandArgs.jname", "character *", "allow_wildcard"},
		"wildcard in a word":     {parseJob("bremove", "vm*"), "words[0]", "character *", "allow_wildcard"},
		"wildcard for a source":  {parseJob("bclone", "old=vm*", "new=vm2"), "CommandArgs.old", "not the name of a guest", ""},
		"path":                   {parseJob("bstart", "jname=../../etc"), "CommandArgs.jname", "slash", "not by a path"},
		"no guest":               {parseJob("bremove", "jname="), "CommandArgs.jname", "names no guest", ""},
		"two guests":             {parseJob("bremove", "jname=vm1 vm2"), "CommandArgs.jname", "more than one", ""},
		"database pattern":       {parseJob("bremove", "jname=vm%"), "CommandArgs.jname", "not the name of a guest", ""},
		"database quote":         {parseJob("bget", "jname=vm1'OR'1'='1"), "CommandArgs.jname", "character '", ""},
		"evaluated":              {parseJob("bget", "jname=$(reboot)"), "CommandArgs.jname", "character $", ""},
		"reserved":               {parseJob("jregister", "jname=dir.id"), "CommandArgs.jname", "not the name of a guest", ""},
		"dash":                   {parseJob("bstart", "jname=-v"), "CommandArgs.jname", "not the name of a guest", ""},
		"new name with capitals": {parseJob("bcreate", "jname=Vm1"), "CommandArgs.jname", "new guest", "lower-case"},
		"long new name":          {parseJob("jcreate", "jname=a123456789012345"), "CommandArgs.jname", "new guest", "15"},
		"new name of a clone":    {parseJob("bclone", "old=vm1", "new=vm_2"), "CommandArgs.new", "new guest", ""},
		"new name of an import":  {parseJob("jimport", "jname=a.img", "new_jname=../x"), "CommandArgs.new_jname", "slash", ""},
		"image upwards":          {parseJob("jimport", "jname=/pool1/../etc/x.img"), "CommandArgs.jname", "upwards", ""},
		"image with a wildcard":  {parseJob("jimport", "jname=*.img"), "CommandArgs.jname", "not the path of an image", ""},
		"image evaluated":        {parseJob("jimport", "jname=/pool1/$(id).img"), "CommandArgs.jname", "character $", ""},

		// words
		"empty word":            {withWords("bstart", ""), "words[0]", "empty", ""},
		"argument for a word":   {withWords("bstart", "jname=vm1"), "words[0]", "is an argument", "send jname"},
		"broken argument":       {withWords("bstart", "=x"), "words[0]", "character =", ""},
		"word of a set command": {withWords("bset", "vm_ram"), "words[0]", "takes no words", ""},
		"word that splits":      {withWords("bstart", "vm1 jname"), "words[0]", "more than one", ""},
		"word evaluated":        {withWords("jls", "$(id)"), "words[0]", "character $", ""},
		"help of a wrapper":     {withWords("bexport", "--help"), "words[0]", "takes no words", ""},
		"help and more":         {withWords("bstart", "--help", "vm1"), "words[0]", "not the name of a guest", ""},
	} {
		t.Run(name, func(t *testing.T) {
			plan, err := p.Plan(tt.job)
			if err == nil {
				t.Fatalf("planned: %q", plan.Argv)
			}
			e, ok := err.(*cbsdmq.Error)
			if !ok || e.Code != cbsdmq.CodeRefused {
				t.Fatalf("not a refusal: %v", err)
			}
			if e.Field != tt.field || !strings.Contains(e.Err.Error(), tt.what) || !strings.Contains(e.Hint, tt.hint) {
				t.Errorf("got field %q, %q, hint %q\nwant field %q, %q, hint %q", e.Field, e.Err, e.Hint, tt.field, tt.what, tt.hint)
			}
			if e.Hint == "" {
				t.Error("no way out")
			}
		})
	}
}

func withWords(command string, words ...string) cbsdmq.Job {
	return cbsdmq.Job{Command: command, Meta: &cbsdmq.Meta{V: cbsdmq.MetaVersion, Words: words}}
}

// A refusal never repeats the value: it may be a password.
func TestRefusalHidesValue(t *testing.T) {
	p := barePool(t)
	_, err := p.Plan(parseJob("bcreate", "jname=vm1", "ci_user_pw_root=hunter2$"))
	if err == nil || strings.Contains(err.Error()+cbsdmq.HintOf(err), "hunter2") {
		t.Errorf("got %v", err)
	}
}

func TestPlanAllows(t *testing.T) {
	for name, tt := range map[string]struct {
		change  func(*Config)
		line    []string
		refused string // part of the message; "" = planned
		lanes   []string
	}{
		"list permits":              {func(c *Config) { c.Allow = []string{"jls"} }, []string{"jls"}, "", nil},
		"empty list":                {func(c *Config) { c.Allow = []string{} }, []string{"jls"}, "not allowed", nil},
		"list excludes":             {func(c *Config) { c.Allow = []string{"jls"} }, []string{"jstart", "jname=j1"}, "not allowed", nil},
		"all":                       {func(c *Config) { c.Allow = []string{"all"} }, []string{"jstart", "jname=j1"}, "", []string{"j1"}},
		"all runs no programs":      {func(c *Config) { c.Allow = []string{"all"} }, []string{"jexec", "jname=j1", "ls"}, "runs other programs", nil},
		"named runs programs":       {func(c *Config) { c.Allow = []string{"all", "jexec"} }, []string{"jexec", "jname=j1", "ls"}, "", []string{"j1"}},
		"named still has no shell":  {func(c *Config) { c.Allow = []string{"jexec"} }, []string{"jexec", "jname=j1", "cmd=$(id)"}, "character $", nil},
		"file":                      {func(c *Config) { c.Allow = []string{"all", "bset:jconf"} }, []string{"bset", "jname=vm1", "jconf=/root/vm1.conf"}, "", []string{"vm1"}},
		"file of another command":   {func(c *Config) { c.Allow = []string{"all", "bset:jconf"} }, []string{"jset", "jname=j1", "jconf=/root/j1.conf"}, "would run", nil},
		"file that is none":         {nil, []string{"bset", "jname=vm1", "mnt_start=0", "bhyve_cmd=/usr/sbin/bhyve"}, "", []string{"vm1"}},
		"wildcard":                  {func(c *Config) { c.AllowWildcard = true }, []string{"bremove", "jname=test*"}, "", []string{WholePool}},
		"wildcard among words":      {func(c *Config) { c.AllowWildcard = true }, []string{"bstop", "vm1", "test*"}, "", []string{WholePool}},
		"wildcard that is more":     {func(c *Config) { c.AllowWildcard = true }, []string{"bremove", "jname=*;reboot"}, "not a pattern", nil},
		"wildcard for a new guest":  {func(c *Config) { c.AllowWildcard = true }, []string{"bcreate", "jname=vm*"}, "new guest", nil},
		"strict":                    {func(c *Config) { c.StrictArgs = true }, []string{"bcreate", "jname=vm1", "colour=blue"}, "no such argument", nil},
		"emulator is always known":  {func(c *Config) { c.StrictArgs = true }, []string{"bstart", "jname=vm1", "emulator=bhyve"}, "", []string{"vm1"}},
		"migration stays one guest": {nil, []string{"bmigrate", "jname=vm1", "node=host2.example.org"}, "", []string{"vm1"}},
	} {
		t.Run(name, func(t *testing.T) {
			if tt.change == nil {
				tt.change = func(*Config) {}
			}
			plan, err := barePool(t, tt.change).Plan(parseJob(tt.line...))
			switch {
			case tt.refused == "" && err != nil:
				t.Fatal(err)
			case tt.refused != "" && (err == nil || !strings.Contains(err.Error(), tt.refused)):
				t.Fatalf("got %v, want %q", err, tt.refused)
			}
			if d := cmp.Diff(tt.lanes, plan.Lanes); d != "" {
				t.Error(d)
			}
		})
	}
}

// The sample jobs that ship with the original client.
func TestPlanSamples(t *testing.T) {
	p := barePool(t)
	for _, body := range []string{
		`{"Command":"jcreate","CommandArgs":{"jname":"jail1","jail_profile":"default","host_hostname":"jail1.my.domain","astart":"1","runasap":"1"}}`,
		`{"Command":"jcreate","CommandArgs":{"jname":"jail1","host_hostname":"jail1.my.domain","astart":"1","pkglist":"bash nginx"}}`,
		`{"Command":"jstart","CommandArgs":{"jname":"jail1"}}`,
		`{"Command":"jstop","CommandArgs":{"jname":"jail1"}}`,
		`{"Command":"jremove","CommandArgs":{"jname":"jail1"}}`,
		`{"Command":"jls","CommandArgs":{"header":"0","display":"jname,jid,ip4_addr,status"}}`,
		`{"Command":"bcreate","CommandArgs":{"jname":"vm1","vm_os_type":"linux","vm_os_profile":"cloud-CentOS-8.0-x86_64","host_hostname":"vm1.my.domain","astart":"1","ci_gw4":"10.0.0.1","ci_ip4_addr":"10.0.0.2/24","ci_user_pw_root":"cbsd","imgsize":"30g","vm_cpus":"2","vm_vnc_port":"0","ci_user_pubkey_centos":"ssh-rsa AAAAB3NzaC1yc2E= root@example.org"}}`,
		`{"Command":"bstart","CommandArgs":{"jname":"vm1"}}`,
		`{"Command":"bstop","CommandArgs":{"jname":"vm1"}}`,
		`{"Command":"bremove","CommandArgs":{"jname":"vm1"}}`,
		`{"Command":"bls","CommandArgs":{"header":"0","display":"jname,jid,vm_ram,vm_cpus,status,vnc"}}`,
	} {
		job, err := cbsdmq.ParseJob([]byte(body))
		if err != nil {
			t.Fatal(err)
		}
		plan, err := p.Plan(job)
		if err != nil {
			t.Errorf("%s: %v", body, err)
		}
		if plan.Warnings != nil {
			t.Errorf("%s: %q", body, plan.Warnings)
		}
	}
}

func TestParseAllow(t *testing.T) {
	for _, bad := range []string{"", "/bin/sh", "jexec:", "jexec:a b", "All", "jexec *"} {
		if _, err := parseAllow([]string{bad}); cbsdmq.CodeOf(err) != cbsdmq.CodeBadConfig {
			t.Errorf("%q: got %v", bad, err)
		}
	}
}

func TestRedact(t *testing.T) {
	for _, secret := range []string{"vnc_password", "spice_password", "ci_user_pw_root", "ci_user_pw_user", "pw", "epw", "pass", "CI_USER_PW_ROOT", "private_key", "api_token"} {
		if !Redact(secret) {
			t.Errorf("%s is not hidden", secret)
		}
	}
	for _, open := range []string{"jname", "vm_ram", "ci_user_pubkey", "ci_user_add", "compress", "passthru", "public_key_count"} {
		if Redact(open) {
			t.Errorf("%s is hidden", open)
		}
	}
}

func TestNearest(t *testing.T) {
	names := []string{"bstart", "bstop", "jname", "vm_ram", "in"}
	for _, tt := range []struct {
		name, near string
		close      bool
	}{
		{"bstrat", "bstart", true}, {"jnam", "jname", true}, {"Jname", "jname", true}, {"vm_rma", "vm_ram", true},
		{"xy", "", false}, {"colour", "", false}, {"ip", "", false},
	} {
		near, close := nearest(tt.name, names)
		if near != tt.near || close != tt.close {
			t.Errorf("%s: got %q, %v, want %q, %v", tt.name, near, close, tt.near, tt.close)
		}
	}
}
