"""scikit-learn's callbacks, where the installed release has them."""

from typing import Any

try:  # scikit-learn 1.9 and later
    from sklearn.callback import CallbackSupportMixin, with_callbacks
except ImportError:

    class CallbackSupportMixin:  # type: ignore[no-redef]
        """Nothing: this release of scikit-learn has no callbacks."""

    def with_callbacks(method: Any) -> Any:
        """Leave a method as it is."""
        return method


__all__ = ["CallbackSupportMixin", "Tasks", "with_callbacks"]


class Tasks:
    """Tell scikit-learn's callbacks of a fit and of its iterations; nothing where there are none.

    An iteration begins where the one before ends, so that the last one that began is empty.
    """

    def __init__(self, estimator: Any, X: Any, y: Any, sample_weight: Any) -> None:
        metadata = None if sample_weight is None else {"sample_weight": sample_weight}
        self.data = {"estimator": estimator, "X": X, "y": y, "metadata": metadata}
        self.root: Any = None
        if hasattr(estimator, "_init_callback_context"):
            most = max(getattr(estimator, "max_iter", 1), 1) + 1
            self.root = estimator._init_callback_context(max_subtasks=most)
            self.root.call_on_fit_task_begin(**self.data)
        self.listening = self.root is not None and hasattr(estimator, "_skl_callbacks")
        self.iteration: Any = None

    def begin(self, attributes: dict[str, Any]) -> None:
        """Begin an iteration with these parameters, to which the one before it has led."""
        if not self.listening:
            return
        options = {**self.data, "reconstruction_attributes": attributes}
        if self.iteration is not None:
            self.iteration.call_on_fit_task_end(**options)
        self.iteration = self.root.subcontext(task_name="iteration")
        self.iteration.call_on_fit_task_begin(**options)

    def close(self) -> None:
        """End the iteration that never ran, and the fit."""
        if self.iteration is not None:
            self.iteration.call_on_fit_task_end(estimator=self.data["estimator"])
        if self.root is not None:
            self.root.call_on_fit_task_end(**self.data, reconstruction_attributes={})
