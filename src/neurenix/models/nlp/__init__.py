"""Text families, one file each; importing a file enters its architectures into ARCHITECTURES."""

from . import bert as bert
from . import fasttext as fasttext
from . import glove as glove
from . import gpt2 as gpt2
from . import marian as marian
from . import roberta as roberta
from . import t5 as t5
from . import word2vec as word2vec
from ._generation import generate as generate
from ._word_vector_files import read_word_vectors as read_word_vectors
from ._word_vectors import WordVectors as WordVectors
from .word_queries import most_similar as most_similar
from .word_queries import similarity as similarity
from .word_queries import vector as vector

__all__ = [
    "WordVectors",
    "bert",
    "fasttext",
    "generate",
    "glove",
    "gpt2",
    "marian",
    "most_similar",
    "read_word_vectors",
    "roberta",
    "similarity",
    "t5",
    "vector",
    "word2vec",
]
