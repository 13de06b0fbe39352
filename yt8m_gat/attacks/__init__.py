"""Perturbations of clips: balls, attacks, augmentation and natural corruptions."""

from yt8m_gat.attacks.attack import Attack, AttackResult, PassCount, top1_missed
from yt8m_gat.attacks.ball import Ball
from yt8m_gat.attacks.fast_gradient import FastGradient

__all__ = ["Attack", "AttackResult", "Ball", "FastGradient", "PassCount", "top1_missed"]
