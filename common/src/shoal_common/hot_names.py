"""``python -m shoal_common.hot_names MODULE ARGUMENT...``: as ``python -m MODULE ARGUMENT...``, with memory better laid
out for the processes that are forked from it.

Looking an attribute up writes to its name: the interpreter's cache of types counts as one more that holds it (until
3.12, since which names are immortal). So a process that has just been forked soon has a copy of each page on which such
a name lies. Names that come first lie side by side: the hundreds that each worker uses then take some pages instead of
hundreds, a megabyte less for each. A name that is missing here, or that nobody uses any more, costs nothing else.
"""

from __future__ import annotations

import sys

#: Printed by benchmarks/hot_names.py.
_NAMES = """
ACTOR_CREATION_TASK AF_UNIX ActorCreated BytesIO CMSG_LEN CPU CheckpointDone CodeType CollectGarbage CoroutineType
CreateActor Decoder DefaultEventLoopPolicy DefaultSelector EFD_CLOEXEC EFD_NONBLOCK EPOLLIN EPOLLOUT EVENT_READ
EVENT_WRITE Event EventsFlushed Explained FINISHED F_DUPFD_CLOEXEC FunctionData FunctionGet FunctionType
GetSetDescriptorType HANDSHAKE_TIMEOUT_S Handle IDLE JobID LastRepliesFound LeaseAssigned LeaseGranted LeaseLost
LeaseReclaim LeaseRefused LeaseSpillback LocalRayletDiedError Lock LogsFlushed MAP_ANONYMOUS MAP_PRIVATE
MAX_HANDSHAKE_FRAME_BYTES Mapping MethodType NodeDrains NodeFound NodeLost OMP_NUM_THREADS O_CLOEXEC O_EXCL O_RDWR
ObjectCreated ObjectLocated ObjectPart ObjectUncache ObjectWritten OwnerFind OwnerFound PAGESIZE PENDING_ARGS_AVAIL
POLLIN PROTOCOL_VERSION PYTHONBREAKPOINT PackageDone READ_BYTES RUNNING Random RayletMessage SCM_RIGHTS
SHOAL_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO SHOAL_DEBUG_POST_MORTEM SHOAL_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES
SHOAL_EXPLAIN_AFTER_S SHOAL_USER_OMP SIGTERM SOCK_NONBLOCK SOCK_STREAM SOL_SOCKET SO_PEERCRED SO_SNDBUF STOP Semaphore
SimpleQueue Task TaskContext TaskIDs TaskReport Thread WeakKeyDictionary WeakSet WeakValueDictionary WorkerExit
_EVENT_READ _Local __annotations__ __asyncio_running_event_loop__ __closure__ __code__ __contains__ __defaults__
__doc__ __exit__ __file__ __get__ __getattr__ __getattribute__ __globals__ __instancecheck__ __iter__ __kwdefaults__
__main__ __module__ __mro__ __name__ __objclass__ __origin__ __package__ __prepare__ __qualname__ __ray_call__
__ray_ready__ __ray_terminate__ __setattr__ __subclasses__ __subclasshook__ __supertype__ __unpacked__ __weakref__
_abandoned _accept _acquire_restore _active_limbo_lock _actors _add_callback _add_reader _addresses _after_acks
_after_dispatch _after_s _alive_left _all_answered _announced _answer _appearance _arena _arena_fd _arena_size _args
_ask _ask_after _asked _asked_back _assemble _assign _asyncgen_finalizer_hook _asyncgen_firstiter_hook _asyncgens
_asyncgens_shutdown_called _at_fork_reinit _at_work _attached _authenticated _background _background_asleep
_background_lock _background_polls _background_until _become_authenticated _before _begun _bootstrap_inner _borrowing
_brought _buffer _builtin_type _by_key _by_worker _cache _cache_lock _cached _cached_sizes _call _call_soon _callback
_callbacks _calls _cancelled _challenged _channel _check_closed _check_running _checkpoint_directory _class_setstate
_clients _clock _clock_resolution _closed _cloudpickle_submodules _coming _commands _commit_removals _complain_at
_cond _connection _connections _context _core _coroutine_origin_tracking_enabled
_coroutine_origin_tracking_saved_depth _count _counter _create_actor _creation _csock _current _current_handle
_daemonic _data _deadline_s _deadlines _debug _decode _decoder _default_executor _descriptors _dial _dialer _dirty_len
_disable _dispatching _drain_wakes _end _end_the_late _ending _epoll _err _event _event_loops _events
_exception_handler _executor _executor_shutdown_called _expects _failures_left _fd _fd_to_key _file _fileobj_lookup
_files _find _find_task _first_reply_at _flag _flush _flush_replies _followers _forked _free _freed _from_peer
_from_raylet _function _function_setstate _functions _futures _garbage _gather _get_running_loop _groups _hand_back
_hand_back_behind _handler _handlers _held _hello _hmac _ident _identity _idle _init_hmac _initialized _initializing
_internal_fds _invoke_excepthook _io_refs _is_debug_mode _is_owned _is_stopped _is_text_encoding _iterating _jobs
_keeper _kept _key_from_fd _known _kwargs _last _last_replies _leader _leading _lease_queue _leaving _left _lending
_lent _limit _limits _listeners _loaded _local _lock _look_at _loop _loop_factory _loops _lost _machine _main_thread
_make _make_function _make_self_pipe _make_skeleton_class _map _map_lock _memory_profile _method_functions _methods
_name _native_id _newcomers _news _next_tick _node_error _node_id _nonce _numbers _on _on_accepted _on_authenticated
_on_close _on_closed _on_error _on_event _on_gone _on_left _on_lost _on_messages _on_order _on_other_raylet_lost
_on_peer _on_peer_gone _on_raylet _on_raylet_closed _on_tick _open _order _others _out _outgoing _outgoing_lock _over
_patience_s _patient _pending_removals _pieces _pins _place _place_of _poll _poll_awake _poll_until _poller
_post_mortem _prefetch _prefix _prepare _process _process_events _process_self_data _progress_at _questions _queue
_queues _raylet_path _raylets _reactor _read _read_from_self _read_into _ready _real_close _recovery _release_save
_remove _repeatable _replies _reply_bytes _reply_lock _report _reported _reporting _repr _requests
_reset_internal_locks _resting _resume _rng _room _routes _run _run_again _run_loop _run_once _run_timers _runner
_running _runs _saved _scheduled _scraps _seconds _see _seen_idle _selector _selector_cls _send _serial _serve
_session _set_called _set_coroutine_origin_tracking _set_ident _set_native_id _set_running_loop _set_timer
_set_tstate_lock _settled _shake_hands _shutdown_locks _shutdown_locks_lock _side _sides _signal_handlers _since_poll
_sleep _sleeps_left _sock _soon _source_traceback _spoilt _ssock _start _start_tasks _start_thread _started _stderr
_stopped _stopping _story _stream _streaming _stubs _suspected _system_calls _taken _tallies _target _task_factory
_tasks _tell_running _thread _thread_id _threads _time_next _timed _timeout_s _timer_at _timer_cancelled_count
_timer_lock _timer_numbers _timer_set _timers _title_lock _tls _token _told _trackers _transports _tstate_lock _turns
_unacknowledged _unanswered _unbegun _uncut _unnamed _unpinned _unread _unready _unwrap_partial _use _used_at _value
_value2member_map_ _values _wait _wait_number _waiters _waiting _waits _wake _wake_background _wake_fd _wake_up_next
_wanted _watch_writes _watcher _watching _watching_writes _weakrefset _when_drained _woke _worker _worker_id _write
_write_error _write_to_self abandoned accept accepted accepting acquire actor actor_class actor_class_id
actor_class_name actor_handle actor_id actor_name actor_registration actors add add_done_callback add_reader address
address_key advice after_dispatch alive all announce answered arena_size args args_object array arrived ask asyncio
at_ms attach attempt authenticate_blocking authenticated backslashreplace become before_close begun bind block_size
blocking borrowing breakpointhook buffer_callback buffers bytes call call_later call_soon call_soon_threadsafe
cancelled cancelling cancels check checkpoint checkpoint_directory chmod class_id class_name clear clients closed
collect command compare_digest concurrency_group concurrency_groups config connect connecting construct constructed
constructs contained context copy_context coro count count_down create_task current_task current_thread daemon data
debug debugging decode default_actor_lifetime defect deliver deque describe describe_task detach dev_mode devices
digest digest_size dirty disable disabled discard done drains dropped due dump dup2 durable embedded encode
encode_frame encodekey encodevalue ensure_job entries env environ epoll error eventfd events exc_info excepthook
exit_actor exiting explaining extend failed failure family fcntl fd feed file fileno fileobj filling find finish
finished fix_imports flags flush flush_replies flush_streams flush_unfinished fork format freeze from_environ
frombytes fsdecode fstat function function_id function_name gauss_next gcs gcs_address getEffectiveLevel
get_asyncgen_hooks get_clock_info get_debug get_ident get_key get_map getattr_static getpid getsizeof getsockopt
gettimeout getuid getvalue give_back globals_ref go_on handle handler has_calls heappop heappush hello hex hmac_digest
hmac_new holds_cpu home host id ignore_environment import_paths in_reactor incarnation incrementalencoder inf insert
install instance intern invoke_excepthook isEnabledFor is_async is_busy is_idle is_open is_running is_set isawaitable
iscoroutinefunction isprintable items job_id job_name job_of job_of_actor job_quota job_weight join json key known
leases_idle leaving lend_cpu level lineage listen listen_host ljust load lock locked log_name logging look loop lost
lost_workers main_thread manager marked max_bytes max_calls max_concurrency max_lineage_bytes max_resources maxlen
method mmap mode monotonic name named_objects namespace new new_class new_event_loop node_error node_id non_detached
nonce noted notify notify_all num_returns object of on_add on_answer on_ask on_attach on_due on_get on_granted
on_input on_lost on_owner_wanted on_push on_raylet on_refused on_remove on_sigterm on_spillback on_stop_signal on_tick
on_yields order os pack_into parent path payload peer_address peer_worker_id peers perf_counter perf_counter_ns
persistent_id pickled pid pidfd_open pinned_for_ever pipe place_of plain poll pop popleft posix_fallocate priority
process proof proto protocol put python questions queues quota_of raylet raylet_path raylets reactor read readable
receive recovery recv recv_fds recvmsg ref refs register release release_unpinned remaining remove reply reply_now
reporting request reset resolution resources rest restarts restore restore_streams retried return role run run_again
run_coroutine run_forever running runs runtime_env sched_yield seed select self send_after_acks send_bytes sendall
sent serve session_dir session_name set set_asyncgen_hooks set_current set_debug set_event_loop set_handler set_job
setblocking setdefault setproctitle setsockopt settimeout settled sha256 shoal._core.task_events
shoal._executor.appearance shoal._executor.executor shoal._executor.loading shoal._net.peers shoal._net.questions
shoal._net.reactor shoal._owner.core_worker shoal._owner.process shoal._owner.tasks.task_reports
shoal._owner.tasks.task_submitter
shoal_common.tls short_left show signal size sleep slow_callback_duration sock socket socket_path socketpair sockets
spec st_dev st_ino start start_calls started stderr stdout store str strategy streaming subimport submitted
submitted_at submitted_ms suppress sys_path table take take_over takes_calls tallies tally task task_events
task_events_enabled task_id task_ids task_name task_of_creation task_reports tasks tell then thread threading tick
time time_left time_limits timeout title tls to_send token told totals touched trace tracing_startup_hook type
undelivered under_way unended unfinished unheld unnamed unpack unready untold update urandom user_of utf_8 values
version_info w wait waiting waitpid waits waits_long wake weakcontainer weakref weight where worker worker_id
worker_process_setup_hook writable write yielding
"""

#: Kept, or they would be made again where there is room.
_kept = [sys.intern(name) for name in _NAMES.split()] if sys.version_info < (3, 12) else []

if __name__ == "__main__":
    import runpy

    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
