"""How far two domains are apart, in features and in labels."""

from .domain_classifier import DomainClassifier as DomainClassifier
from .domain_classifier import fit_domain_classifier as fit_domain_classifier
from .label_shift import black_box_shift as black_box_shift
from .label_shift import class_shares as class_shares
from .label_shift import confusion_rates as confusion_rates
from .label_shift import maximum_likelihood_shift as maximum_likelihood_shift
from .label_shift import share_distance as share_distance
from .neighbours import nearest_neighbours as nearest_neighbours
from .neighbours import neighbour_agreement as neighbour_agreement
from .neighbours import share_alike as share_alike
from .neighbours import told_by_neighbours as told_by_neighbours
from .proxy_distance import proxy_distance as proxy_distance

__all__ = [
    "DomainClassifier",
    "black_box_shift",
    "class_shares",
    "confusion_rates",
    "fit_domain_classifier",
    "maximum_likelihood_shift",
    "nearest_neighbours",
    "neighbour_agreement",
    "proxy_distance",
    "share_alike",
    "share_distance",
    "told_by_neighbours",
]
