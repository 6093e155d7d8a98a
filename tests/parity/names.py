"""Public names that Ray 2.60 has beside those that every program uses: a list to check oneself against.

Each is here, or stands in the table "Names that are missing" of docs/coming-from-ray.md. Names of the bindings for
other languages and of Ray's libraries are left out.
"""

from __future__ import annotations

#: Module -> names, as one finds them with ``dir``.
NAMES_OF_RAY: dict[str, str] = {
    "ray": """
        ActorClassID ActorID ClientBuilder DynamicObjectRefGenerator FunctionID JobID LoggingConfig NodeID ObjectID
        ObjectRefGenerator PlacementGroupID TaskID UniqueID WorkerID autoscaler cancel client data internal
        widgets workflow
    """,
    "ray.util": """
        accelerators collective connect disable_log_once_globally disconnect enable_periodic_logging
        get_node_instance_id iter log_once pdb ray_debugpy
    """,
    "ray.util.state": """
        StateApiClient get_actor get_job get_log get_node get_objects get_placement_group get_task get_worker
        list_actors list_cluster_events list_jobs list_logs list_nodes list_objects list_placement_groups
        list_runtime_envs list_tasks list_workers summarize_actors summarize_objects summarize_tasks
    """,
    "ray.util.placement_group": """
        NODE_ID_LABEL_KEY PLACEMENT_GROUP_BUNDLE_RESOURCE_NAME VALID_PLACEMENT_GROUP_STRATEGIES
        check_placement_group_index validate_label_selector validate_placement_group
    """,
    "ray.util.metrics": "Counter Gauge Histogram",
    "ray.util.multiprocessing": "JoinableQueue TimeoutError",
    "ray.util.collective": """
        allgather allgather_multigpu allreduce allreduce_multigpu barrier broadcast broadcast_multigpu
        create_collective_group destroy_collective_group get_collective_group_size get_group_handle get_rank
        gloo_available init_collective_group is_backend_available is_group_initialized nccl_available recv
        recv_multigpu reduce reduce_multigpu reducescatter reducescatter_multigpu register_collective_backend send
        send_multigpu
    """,
    "ray.util.tracing": "tracing_helper",
    "ray.util.debug": """
        Suspect disable_log_once_globally enable_periodic_logging log_once reset_log_once tracemalloc
    """,
    "ray.util.serialization": "StandaloneSerializationContext deregister_serializer register_serializer",
    "ray.util.accelerators": """
        AMD_INSTINCT_MI100 AMD_INSTINCT_MI210 AMD_INSTINCT_MI250 AMD_INSTINCT_MI250x AMD_INSTINCT_MI300A
        AMD_INSTINCT_MI300x AMD_INSTINCT_MI300x_HF AMD_INSTINCT_MI308x AMD_INSTINCT_MI325x AMD_INSTINCT_MI350x
        AMD_INSTINCT_MI355x AMD_RADEON_HD_7900 AMD_RADEON_R9_200_HD_7900 APPLE_M1 APPLE_M1_MAX APPLE_M1_PRO
        APPLE_M1_ULTRA APPLE_M2 APPLE_M2_MAX APPLE_M2_PRO APPLE_M2_ULTRA APPLE_M3 APPLE_M3_MAX APPLE_M3_PRO
        APPLE_SILICON AWS_NEURON_CORE FURIOSA_RNGD GOOGLE_TPU_V2 GOOGLE_TPU_V3 GOOGLE_TPU_V4 GOOGLE_TPU_V5LITEPOD
        GOOGLE_TPU_V5P GOOGLE_TPU_V6E GOOGLE_TPU_V7X HUAWEI_NPU_910B HUAWEI_NPU_910B4 INTEL_GAUDI INTEL_MAX_1100
        INTEL_MAX_1550 METAX_C500 METAX_C550 MOBILINT_ARIES MOBILINT_REGULUS NVIDIA_A100 NVIDIA_A100_40G
        NVIDIA_A100_80G NVIDIA_B200 NVIDIA_B300 NVIDIA_GB200 NVIDIA_GB300 NVIDIA_H100 NVIDIA_H20 NVIDIA_H200
        NVIDIA_L4 NVIDIA_L40S NVIDIA_RTX_PRO_6000 NVIDIA_TESLA_A10G NVIDIA_TESLA_K80 NVIDIA_TESLA_P100
        NVIDIA_TESLA_P4 NVIDIA_TESLA_T4 NVIDIA_TESLA_V100
    """,
    "ray.util.annotations": "AnnotationType RayDeprecationWarning wraps",
    "ray.util.rpdb": "Pdb log set_trace",
    "ray.exceptions": """
        ActorDiedErrorContext ActorID Address ErrorType NodeDeathInfo RAY_EXCEPTION_TYPES RayException TaskID
        WorkerID
    """,
    "ray.runtime_env": "RuntimeEnv RuntimeEnvConfig",
    "ray.runtime_context": "RuntimeEnv TaskID actors parse_pg_formatted_resources_to_original",
    "ray.job_submission": "DriverInfo JobDetails JobErrorType JobInfo JobStatus JobSubmissionClient JobType",
    "ray.job_config": "LoggingConfig",
    "ray.cluster_utils": """
        AutoscalingCluster FAKE_HEAD_NODE_ID GcsClientOptions cluster_not_supported disable_client_hook
    """,
    "ray.experimental.tqdm_ray": "ProgressBarState RAY_TQDM_MAGIC log_once real_tqdm safe_print tqdm",
    "ray.dag": """
        BIND_INDEX_KEY COLLECTIVE_OPERATION_KEY ClassMethodNode ClassNode CollectiveOutputNode DAGContext
        DAGInputData DAGNODE_TYPE_KEY DAGNode DAGOperationFuture FunctionNode GPUFuture IS_CLASS_METHOD_OUTPUT_KEY
        InputAttributeNode InputNode MultiOutputNode PARENT_CLASS_NODE_KEY PREV_CLASS_METHOD_CALL_KEY plot
    """,
    "ray.types": "ObjectRef",
    "ray.cloudpickle": "CloudPickler dump dumps load loads",
    "ray.autoscaler.sdk": """
        bootstrap_config configure_logging create_or_update_cluster fillout_defaults get_docker_host_mount_location
        get_head_node_ip get_worker_node_ips register_callback_handler request_resources rsync run_on_cluster
        teardown_cluster
    """,
    "ray.client_builder": """
        BaseContext CLIENT_DOCS_URL ClientBuilder ClientContext JobConfig LoggingConfig
        RAY_ADDRESS_ENVIRONMENT_VARIABLE RAY_NAMESPACE_ENVIRONMENT_VARIABLE RAY_RUNTIME_ENV_ENVIRONMENT_VARIABLE
        client dataclass get_ray_client_dependency_error importlib ray_driver_init split_address
    """,
}
