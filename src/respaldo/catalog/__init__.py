"""The catalogue: trees and lists over chunks, snapshots over trees."""
