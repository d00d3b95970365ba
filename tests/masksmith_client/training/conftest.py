import pytest
import torch
from support.training_loop import perceptron


@pytest.fixture(autouse=True, scope="package")
def one_thread():
    """Layers this small are slower on more."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def model():
    return perceptron()


@pytest.fixture
def optimizer(model):
    return torch.optim.AdamW(model.parameters(), lr=5e-3)
