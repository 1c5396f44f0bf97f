package cbsd

// Names of arguments that several commands take, separated by spaces: the
// columns of CBSD's tables, and the lists in its share directory. --args on a
// host prints them with the command's own.
const (
	jailArgs = "allow_devfs allow_dying allow_fdescfs allow_fusefs allow_kmem allow_linprocfs allow_linsysfs allow_mlock allow_mount allow_nfsd " +
		"allow_nullfs allow_procfs allow_raw_sockets allow_read_msgbuf allow_reserved_ports allow_sysvipc allow_tmpfs allow_unprivileged_proc_debug " +
		"allow_vmm allow_zfs applytpl arch astart b_order basename baserw boot_delay childrenmax ci_gw4 cpuset data devfs_ruleset emulator emulator_flags " +
		"enforce_statfs exec_consolelog exec_fib exec_master_poststart exec_master_poststop exec_master_prestart exec_master_prestop exec_poststart " +
		"exec_poststop exec_prestart exec_prestop exec_start exec_stop exec_timeout floatresolv gid hidden host_hostname interface ip4_addr jdomain " +
		"jnameserver masterhost mdsize mkhostsfile mnt_start mnt_stop mount_devfs mount_fdescfs mount_fstab mount_kernel mount_linprocfs mount_linsysfs " +
		"mount_obj mount_ports mount_procfs mount_src nic_hwaddr path persist protected rcconf slavenode stop_timeout sysvmsg sysvsem sysvshm tags ver vnet " +
		"zfs_encryption"
	jailRow = "allow_devfs allow_dying allow_fdescfs allow_fusefs allow_kmem allow_linprocfs allow_linsysfs allow_mlock allow_mount allow_nfsd " +
		"allow_nullfs allow_procfs allow_raw_sockets allow_read_msgbuf allow_reserved_ports allow_sysvipc allow_tmpfs allow_unprivileged_proc_debug " +
		"allow_vmm allow_zfs applytpl arch astart b_order basename baserw boot_delay childrenmax ci_gw4 cpuset data depend devfs_ruleset emulator " +
		"emulator_flags enforce_statfs exec_consolelog exec_fib exec_master_poststart exec_master_poststop exec_master_prestart exec_master_prestop " +
		"exec_poststart exec_poststop exec_prestart exec_prestop exec_start exec_stop exec_timeout floatresolv gid hidden host_hostname interface ip4_addr " +
		"jdomain jid jname jnameserver maintenance masterhost mdsize mkhostsfile mnt_start mnt_stop mount_devfs mount_fdescfs mount_fstab mount_kernel " +
		"mount_linprocfs mount_linsysfs mount_obj mount_ports mount_procfs mount_src name path persist protected rcconf slavenode state_time status " +
		"stop_timeout sysvmsg sysvsem sysvshm tags ver vnet zfs_encryption"
	bhyveRow = "astart bhyve_cmd bhyve_flags bhyve_force_msi_irq bhyve_generate_acpi bhyve_ignore_msr_acc bhyve_mptable_gen bhyve_rts_keeps_utc " +
		"bhyve_vnc_kbdlayout bhyve_vnc_resolution bhyve_vnc_tcp_bind bhyve_vnc_vgaconf bhyve_wire_memory bhyve_x2apic_mode bhyverun_wrapper " +
		"bhyvestop_wrapper boot_delay cd_boot_firmware cd_vnc_wait chrooted cpuset debug_engine double_acpi efi_firmware fbuf hdd_boot_firmware hidden " +
		"ip4_addr jailed jname maintenance mnt_start mnt_stop on_crash on_poweroff on_reboot pid_wait protected soundhw tablet tags tpm uuid virtio_rnd " +
		"virtio_type vm_boot vm_console vm_cpu_topology vm_cpus vm_efi vm_hostbridge vm_iso_path vm_iso_path2 vm_os_profile vm_os_type vm_ram vm_rd_port " +
		"vm_vnc_port vm_zfs_guid vnc_password xhci"
	bhyveSettings = "astart bhyve_cmd bhyve_flags bhyve_force_msi_irq bhyve_generate_acpi bhyve_ignore_msr_acc bhyve_mptable_gen bhyve_rts_keeps_utc " +
		"bhyve_vnc_kbdlayout bhyve_vnc_resolution bhyve_vnc_tcp_bind bhyve_vnc_vgaconf bhyve_wire_memory bhyve_x2apic_mode bhyverun_wrapper " +
		"bhyvestop_wrapper boot_delay cd_boot_firmware cd_vnc_wait chrooted cpuset created debug_engine double_acpi efi_firmware fbuf hdd_boot_firmware " +
		"hidden ip4_addr jailed maintenance media_auto_eject on_crash on_poweroff on_reboot pid_wait protected soundhw state_time tablet tags tpm uuid " +
		"virtio_rnd virtio_type vm_boot vm_console vm_cpu_topology vm_cpus vm_efi vm_hostbridge vm_iso_path vm_iso_path2 vm_os_profile vm_os_type vm_ram " +
		"vm_rd_port vm_vnc_port vm_zfs_guid vnc_password vnc_port xhci"
	qemuSettings = "arch astart bios boot_delay cd_vnc_wait cpu created debug_engine hidden ip4_addr kernel machine machine_accel maintenance on_crash " +
		"on_poweroff on_reboot protected qemu_hap qemu_nestedhvm qemu_spice_flags qemu_spice_resolution qemu_spice_tcp_bind qemu_vnc_resolution " +
		"qemu_vnc_tcp_bind soundhw spice_default spice_password state_time tablet usb vga vm_boot vm_cpus vm_iso_path vm_iso_path2 vm_os_profile vm_os_type " +
		"vm_ram vm_spice_port vm_vnc_port vm_zfs_guid vnc_password vnc_port xhci"
	xenSettings = "astart bios cd_vnc_wait created debug_engine hidden ip4_addr maintenance on_crash on_poweroff on_reboot protected soundhw " +
		"spice_default spice_password state_time vm_boot vm_cpus vm_iso_path vm_os_profile vm_os_type vm_ram vm_spice_port vm_vnc_port vnc_password xen_hap " +
		"xen_nestedhvm xen_spice_resolution xen_spice_tcp_bind xen_vnc_resolution xen_vnc_tcp_bind"
	virtualboxRow = "astart bhyve_flags jname virtio_type vm_boot vm_console vm_cpus vm_hostbridge vm_iso_path vm_iso_path2 vm_os_profile vm_os_type " +
		"vm_ram vm_rd_port vm_vnc_port"
	limits = "bw coredumpsize cpu datasize fsquota maxproc memorylocked memoryuse msgqqueued msgqsize nice nmsgq nsem nsemop nshm nthr openfiles pcpu " +
		"pseudoterminals readbps readiops shmsize stacksize swapuse vmemoryuse wallclock writebps writeiops"
	createArgs = "ci_fqdn ci_gw4 ci_gw42 ci_interface ci_interface2 ci_interface_mtu ci_interface_mtu2 ci_ip4_addr ci_ip4_addr2 ci_jname " +
		"ci_nameserver_address ci_nameserver_searchci_adjust_inteface_helper ci_template ci_user_add ci_user_pubkey ci_user_pw_root ci_user_pw_user data " +
		"emulator flavor host_hostname imgsize imgtype inter interface interface2 is_cloud iso_img iso_site jconf media_auto_eject nic_driver nic_hwaddr " +
		"nic_ratelimit path rcconf rctl_nice register_iso_as register_iso_name relative_path removejconf runasap swapsize vm_guestfs zfs_snapsrc"
)
