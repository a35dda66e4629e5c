//! Which system calls a locked process is refused (seccomp), by what it is for.
//!
//! This is a list of what is refused, and not of what is allowed: what a graphics processor's driver
//! calls differs from version to version, and a model that runs on the desk must run in the field. Refused
//! is what no provider needs and what leads out of the process: programs, other processes, networks, the
//! agent's own socket, the rights of files (which Landlock leaves open), and the parts of the kernel where
//! most of its holes were. A refused call fails with EPERM, so that a library that only tries goes on.
//!
//! What stays open, and for whom: threads and their placing (every provider), `ioctl` on devices that
//! Landlock lets through (CUDA, TensorRT, OpenVINO), `memfd_create`, `mbind` and `set_mempolicy` (CUDA),
//! Unix socket pairs (the agent's, and the wake-ups of frames).

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, apply_filter, sock_filter,
};
use std::collections::BTreeMap;

use super::Role;

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// What changes the kernel or the machine, or reaches parts of the kernel that need no model. All roles.
const KERNEL: &[i64] = &[
    libc::SYS_acct,
    libc::SYS_add_key,
    libc::SYS_adjtimex,
    libc::SYS_bpf,
    libc::SYS_chroot,
    libc::SYS_clock_adjtime,
    libc::SYS_clock_settime,
    libc::SYS_delete_module,
    libc::SYS_fanotify_init,
    libc::SYS_finit_module,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_init_module,
    libc::SYS_kexec_file_load,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_mount,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_open_by_handle_at,
    libc::SYS_open_tree,
    libc::SYS_perf_event_open,
    libc::SYS_pivot_root,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_reboot,
    libc::SYS_request_key,
    libc::SYS_setdomainname,
    libc::SYS_sethostname,
    libc::SYS_setns,
    libc::SYS_settimeofday,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_syslog,
    libc::SYS_umount2,
    libc::SYS_unshare,
    libc::SYS_userfaultfd,
    libc::SYS_vhangup,
    // Into other processes.
    libc::SYS_kcmp,
    libc::SYS_pidfd_getfd,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
];

/// Programs and other processes, and the rights of files. All roles but the one that starts programs.
const PROGRAMS: &[i64] = &[
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_migrate_pages,
    libc::SYS_pidfd_send_signal,
    libc::SYS_process_madvise,
    libc::SYS_tkill,
    // A way around all of this: what is asked for there is not seen by the filter.
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_io_uring_setup,
    // By path, anywhere. `fchmod` stays: it takes a file that could be opened.
    libc::SYS_fchmodat,
    FCHMODAT2,
    libc::SYS_fchownat,
    libc::SYS_lremovexattr,
    libc::SYS_lsetxattr,
    libc::SYS_mknodat,
    libc::SYS_removexattr,
    libc::SYS_setxattr,
    libc::SYS_truncate,
];

/// Since Linux 6.6, the same number on every processor.
const FCHMODAT2: i64 = 452;

/// The older forms of some, which newer processors have not.
#[cfg(target_arch = "x86_64")]
const OLD_KERNEL: &[i64] = &[libc::SYS_ioperm, libc::SYS_iopl, libc::SYS_modify_ldt];
#[cfg(target_arch = "x86_64")]
const OLD_PROGRAMS: &[i64] =
    &[libc::SYS_chmod, libc::SYS_chown, libc::SYS_fork, libc::SYS_lchown, libc::SYS_mknod, libc::SYS_vfork];
#[cfg(not(target_arch = "x86_64"))]
const OLD_KERNEL: &[i64] = &[];
#[cfg(not(target_arch = "x86_64"))]
const OLD_PROGRAMS: &[i64] = &[];

/// Whoever reads frames and answers over what it was given when it was started connects to nobody: not
/// to the agent's own socket, nor to the system's bus.
const TALK: &[i64] = &[libc::SYS_connect, libc::SYS_sendmmsg, libc::SYS_sendmsg];

/// Words typed into the terminal that the agent was started from.
const TIOCSTI: u64 = 0x5412;
const TIOCLINUX: u64 = 0x541c;

/// Every kind of namespace in the flags of `clone`.
const NAMESPACES: [libc::c_int; 7] = [
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWNET,
    libc::CLONE_NEWNS,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWUTS,
];

/// Refuses this thread, and all that it will start, what its role has no use for. "No new privileges"
/// must have been set.
///
/// # Errors
/// Why nothing is refused, with the remedy.
pub(super) fn refuse(role: Role) -> Result<(), String> {
    let told = |error: &dyn std::fmt::Display| {
        format!("this kernel does not filter system calls ({error}); one with CONFIG_SECCOMP_FILTER does")
    };
    let own = u64::from(rustix::process::getpid().as_raw_pid().unsigned_abs());
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(|error| told(&error))?;
    let filter = |rules: Rules, errno: libc::c_int| {
        let refused = SeccompAction::Errno(errno.unsigned_abs());
        let filter = SeccompFilter::new(rules, SeccompAction::Allow, refused, arch);
        filter.and_then(BpfProgram::try_from).map_err(|error| told(&error))
    };
    // Its flags lie in memory, where a filter cannot look. Told that it is unknown, the C library takes
    // `clone`, whose flags can be seen.
    let newer = Rules::from([(libc::SYS_clone3, Vec::new())]);
    let rules = rules(role, own).map_err(|error| told(&error))?;
    let programs = [older_numbers(), filter(newer, libc::ENOSYS)?, filter(rules, libc::EPERM)?];
    // The last one forbids nothing that this needs.
    for program in programs.iter().filter(|program| !program.is_empty()) {
        apply_filter(program).map_err(|error| told(&error))?;
    }
    Ok(())
}

/// x86-64 has every call a second time, with 32-bit pointers, under numbers of its own. Nobody uses them.
fn older_numbers() -> BpfProgram {
    const X32: u32 = 0x4000_0000;
    if cfg!(not(target_arch = "x86_64")) {
        return BpfProgram::new();
    }
    let word = |code: u32, jt, jf, k| sock_filter { code: code as u16, jt, jf, k };
    vec![
        // The call's number is the first word of what the filter sees.
        word(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        word(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, 0, 1, X32),
        word(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM.unsigned_abs()),
        word(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ]
}

fn rules(role: Role, own: u64) -> Result<Rules, seccompiler::BackendError> {
    let mut rules = Rules::new();
    let mut plain = |calls: &[i64]| rules.extend(calls.iter().map(|call| (*call, Vec::new())));
    plain(KERNEL);
    plain(OLD_KERNEL);
    if role != Role::Starter {
        plain(PROGRAMS);
        plain(OLD_PROGRAMS);
    }
    if role == Role::Model {
        plain(TALK);
    }

    let mut when = |call: i64, conditions: &[(u8, SeccompCmpOp, u64)]| {
        let conditions = conditions.iter().map(|(argument, operator, value)| {
            SeccompCondition::new(*argument, SeccompCmpArgLen::Dword, operator.clone(), *value)
        });
        let rule = SeccompRule::new(conditions.collect::<Result<_, _>>()?)?;
        rules.entry(call).or_default().push(rule);
        Ok::<(), seccompiler::BackendError>(())
    };
    for words in [TIOCSTI, TIOCLINUX] {
        when(libc::SYS_ioctl, &[(1, SeccompCmpOp::Eq, words)])?;
    }
    for kind in NAMESPACES {
        let kind = u64::from(kind.cast_unsigned());
        when(libc::SYS_clone, &[(0, SeccompCmpOp::MaskedEq(kind), kind)])?;
    }
    if role == Role::Starter {
        return Ok(rules);
    }
    // A thread, and no other process: one that is left behind would outlive its model.
    let thread = u64::from(libc::CLONE_THREAD.cast_unsigned());
    when(libc::SYS_clone, &[(0, SeccompCmpOp::MaskedEq(thread), 0)])?;
    // Itself, as a last resort.
    for call in [libc::SYS_kill, libc::SYS_tgkill, libc::SYS_rt_sigqueueinfo, libc::SYS_rt_tgsigqueueinfo] {
        when(call, &[(0, SeccompCmpOp::Ne, own)])?;
    }
    // The limits and the priority of others, the agent's above all.
    when(libc::SYS_prlimit64, &[(0, SeccompCmpOp::Ne, 0), (0, SeccompCmpOp::Ne, own)])?;
    for call in [
        libc::SYS_sched_setattr,
        libc::SYS_sched_setparam,
        libc::SYS_sched_setscheduler,
        libc::SYS_move_pages,
    ] {
        when(call, &[(0, SeccompCmpOp::Ne, 0)])?;
    }
    for call in [libc::SYS_setpriority, libc::SYS_ioprio_set] {
        when(call, &[(1, SeccompCmpOp::Ne, 0)])?;
    }
    if role != Role::Client {
        let unix = u64::from(libc::AF_UNIX.unsigned_abs());
        when(libc::SYS_socket, &[(0, SeccompCmpOp::Ne, unix)])?;
    }
    if role == Role::Model {
        // To an address, on a socket that is connected to nobody.
        let address = SeccompCondition::new(4, SeccompCmpArgLen::Qword, SeccompCmpOp::Ne, 0)?;
        rules.entry(libc::SYS_sendto).or_default().push(SeccompRule::new(vec![address])?);
    }
    Ok(rules)
}
