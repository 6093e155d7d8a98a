"""The public names: what is added or goes is added or goes on purpose."""

from __future__ import annotations

import importlib.metadata
import inspect
import re
from pathlib import Path

import pytest

import shoal
from shoal import exceptions

PUBLIC = {
    "shoal": """
        CONTENT
        ActorClass ActorClassID ClientBuilder LoggingConfig client client_builder ActorHandle ActorID Explanation
        FunctionID JobID NodeID ObjectID ObjectRef DynamicObjectRefGenerator ObjectRefGenerator
        PlacementGroupID RemoteFunction TaskID UniqueID WorkerID actor autoscaler available_resources
        cancel checkpoint cloudpickle
        cluster_resources exceptions experimental explain get get_actor get_object get_gpu_ids get_runtime_context init
        is_initialized job_config kill method nodes progress timeline put remote remote_function shutdown
        types util wait
    """,
    "shoal.actor": "ActorClass ActorClassInheritanceException ActorHandle ActorMethod ActorProxy exit_actor",
    "shoal.cloudpickle": """
        CloudPickler DEFAULT_PROTOCOL Pickler PicklingError __version__ dump dumps list_registry_pickle_by_value load
        loads register_pickle_by_value unregister_pickle_by_value
    """,
    "shoal.autoscaler.sdk": "request_resources",
    "shoal.client_builder": "ClientBuilder ClientContext client",
    "shoal.dag": """
        ClassMethodNode ClassNode DAGContext DAGInputData DAGNode FunctionNode InputAttributeNode InputNode
        MultiOutputNode
    """,
    "shoal.dag.input_node": "InputAttributeNode InputNode",
    "shoal.dag.output_node": "MultiOutputNode",
    "shoal.experimental": "ObjectBuffer create_object get_local_object_locations get_object_locations",
    "shoal.experimental.tqdm_ray": "RAY_TQDM_MAGIC ProgressBarState real_tqdm safe_print tqdm",
    "shoal.remote_function": "RemoteFunction",
    "shoal.types": "ObjectRef",
    "shoal.util": """
        ActorPool accelerators as_completed connect disconnect deregister_serializer disable_log_once_globally
        enable_periodic_logging
        get_current_placement_group get_node_instance_id get_node_ip_address get_placement_group inspect_serializability
        list_named_actors list_named_objects
        log_once map_unordered placement_group placement_group_table register_serializer
        remove_placement_group
    """,
    "shoal.util.annotations": "AnnotationType Deprecated DeveloperAPI PublicAPI RayDeprecationWarning",
    "shoal.util.collective": """
        ReduceOp allgather allreduce barrier broadcast create_collective_group destroy_collective_group
        get_collective_group_size get_rank gloo_available init_collective_group is_group_initialized nccl_available
        recv reduce reducescatter send
    """,
    "shoal.util.dask": """
        ProgressBarCallback RayDaskCallback disable_dask_on_ray enable_dask_on_ray ray_dask_get ray_dask_get_sync
        ray_dask_persist
    """,
    "shoal.util.debug": "disable_log_once_globally enable_periodic_logging log_once reset_log_once",
    "shoal.util.kv": "Entry delete get put watch",
    "shoal.util.metrics": "Counter Gauge Histogram",
    "shoal.util.multiprocessing": "JoinableQueue Pool TimeoutError",
    "shoal.util.pdb": "post_mortem set_trace",
    "shoal.util.rpdb": "Pdb post_mortem set_trace",
    "shoal.util.placement_group": """
        NODE_ID_LABEL_KEY PlacementGroup PlacementGroupID VALID_PLACEMENT_GROUP_STRATEGIES check_placement_group_index
        get_current_placement_group get_placement_group placement_group placement_group_table remove_placement_group
        validate_label_selector validate_placement_group
    """,
    "shoal.util.scheduling_strategies": """
        DoesNotExist Exists In NodeAffinitySchedulingStrategy NodeLabelSchedulingStrategy NotIn
        PlacementGroupSchedulingStrategy
    """,
    "shoal.util.serialization": "StandaloneSerializationContext deregister_serializer register_serializer",
}

ERRORS = """
    ActorAlreadyExistsError ActorClassInheritanceException ActorDiedError ActorError ActorHandleNotFoundError
    ActorPlacementGroupRemoved ActorUnavailableError ActorUnschedulableError AsyncioActorExit AuthenticationError
    ChannelError ChannelTimeoutError CheckpointError
    JobInUseError NamedObjectError
    CompiledGraphCapacityExceeded CrossLanguageError DeadlockError
    DirectTransportError GatewayLostError GetTimeoutError LocalRayletDiedError NodeDiedError ObjectFetchTimedOutError
    ObjectFreedError ObjectLostError ObjectReconstructionFailedError ObjectRefStreamEndOfStreamError
    ObjectStoreFullError OufOfBandObjectRefSerializationException OutOfDiskError OutOfMemoryError OwnerDiedError
    PendingCallsLimitExceeded PlasmaObjectNotAvailable RayActorError RayCgraphCapacityExceeded RayChannelError
    RayChannelTimeoutError RayDirectTransportError RayError RaySystemError RayTaskError
    ReferenceCountingAssertionError RpcError RuntimeEnvSetupError ShoalError ShoalSystemError
    StreamingGeneratorReplayInconsistentError TaskCancelledError TaskError TaskPlacementGroupRemoved TaskTimeoutError
    TaskUnschedulableError UnserializableException UserCodeException VersionConflictError WorkerCrashedError
"""


@pytest.mark.parametrize("module", PUBLIC)
def test_public_names(module: str) -> None:
    found = importlib.import_module(module)
    assert sorted(found.__all__) == sorted(PUBLIC[module].split())
    assert [name for name in found.__all__ if not hasattr(found, name)] == []


def test_the_reference_has_every_public_module() -> None:
    pages = (Path(__file__).parents[3] / "docs" / "reference").glob("*.md")
    shown = {name for page in pages for name in re.findall(r"^::: (\S+)$", page.read_text(), re.MULTILINE)}
    elsewhere = {"shoal.cloudpickle", "shoal.types"}  # cloudpickle's own names; those of ``shoal``
    assert PUBLIC.keys() - shown - elsewhere == set()


WAYS_OUT = {
    ("shoal", "_private"): "coming-from-ray",
    ("shoal", "train"): "coming-from-ray",
    ("shoal.autoscaler.sdk", "create_or_update_cluster"): "shoal start",
    ("shoal.util", "iter"): "as_completed",
    ("shoal.util", "ray_debugpy"): "shoal debug",
}


@pytest.mark.parametrize(("module", "name"), WAYS_OUT)
def test_missing_names_of_ray_say_what_to_do(module: str, name: str) -> None:
    found = importlib.import_module(module)
    assert not hasattr(found, name)
    with pytest.raises(AttributeError, match=f"'{name}': it is not implemented by Shoal.*{WAYS_OUT[module, name]}"):
        getattr(found, name)


@pytest.mark.parametrize(("module", "name"), WAYS_OUT)
def test_so_they_do_where_they_are_imported(module: str, name: str) -> None:
    text = f"'{name}' from '{module}': it is not implemented by Shoal.*{WAYS_OUT[module, name]}"
    with pytest.raises(ImportError, match=text):
        exec(f"from {module} import {name}", {})


def test_references_are_not_made_by_hand() -> None:
    with pytest.raises(TypeError, match="cannot be made by hand"):
        shoal.ObjectRef(b"x" * 24)  # type: ignore[arg-type]


def test_another_missing_name_is_not_explained() -> None:
    name = "gett"
    with pytest.raises(AttributeError, match=r"^module 'shoal' has no attribute 'gett'$"):
        getattr(shoal, name)


def test_errors() -> None:
    found = {name for name, _ in inspect.getmembers(exceptions, inspect.isclass) if not name.startswith("_")}
    found -= {"Any", "ClassVar", "ActorID", "TaskID", "WorkerID"}
    assert found == set(ERRORS.split())
    outside = {name for name in found if getattr(exceptions, name).__module__ != "shoal.exceptions"}
    assert outside == set()
    listed = {error.__name__ for error in exceptions.RAY_EXCEPTION_TYPES}
    aliases = {name for name in found if getattr(exceptions, name).__name__ != name}
    assert listed == found - aliases - {"ActorClassInheritanceException"}  # a TypeError, as in Ray


def test_the_package_has_a_version() -> None:
    assert shoal.__version__ == importlib.metadata.version("shoal")
