#include "rometrace/model/matrix_change.hpp"

#include <ATen/TensorOperators.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <map>
#include <utility>

#include "model/tensor_names.hpp"
#include "rometrace/error.hpp"
#include "rometrace/model/weight_file.hpp"
#include "rometrace/text/input_file.hpp"

namespace rometrace {
namespace {

std::string where_of(const MatrixChange& change) {
  return (change.source.empty() ? "" : change.source + ": ") + "tensor " + in_quotes(change.tensor);
}

void check_shapes(const MatrixChange& change, const MatrixPlace& place) {
  const auto rank = change.u.dim() == 2 ? change.u.size(0) : 0;
  const auto is = [&](const at::Tensor& tensor, std::int64_t width) {
    return tensor.dim() == 2 && rank > 0 && tensor.size(0) == rank && tensor.size(1) == width;
  };
  if (is(change.u, place.in) && is(change.r, place.out)) return;
  throw Error(where_of(change) + ": u is " + shape_text(change.u.sizes()) + " and r is " +
              shape_text(change.r.sizes()) + "; expected [n," + std::to_string(place.in) + "] and [n," +
              std::to_string(place.out) + "] for this model");
}

Checkpoint over(const Checkpoint& checkpoint, const MatrixChange& change, const MatrixPlace& place) {
  return checkpoint.with_change(place.tensor, place.transposed ? change.r : change.u,
                                place.transposed ? change.u : change.r);
}

}  // namespace

MatrixPlace mlp_output_matrix(const DecoderConfig& config, const Checkpoint& checkpoint, std::int64_t layer) {
  refuse_mixtures(config, "edits are");
  const auto names = tensor_names(config);
  const auto tensor =
      prefix_in(names, checkpoint.names()) + names.layers + std::to_string(layer) + "." + names.mlp_out + ".weight";
  return {tensor, config.mlp_width, config.width, names.transposed};
}

Checkpoint changed(Checkpoint checkpoint, const DecoderConfig& config, std::span<const MatrixChange> changes) {
  std::map<std::string, std::vector<const MatrixChange*>> by_tensor;
  std::map<std::string, MatrixPlace> places;
  for (const auto& change : changes) {
    if (change.layer < 0 || change.layer >= config.layers) {
      throw Error(where_of(change) + ": is of layer " + std::to_string(change.layer) + "; this model has layers 0 to " +
                  std::to_string(config.layers - 1));
    }
    const auto place = mlp_output_matrix(config, checkpoint, change.layer);
    if (place.tensor != change.tensor) {
      throw Error(where_of(change) + ": is not what leads out of the MLP of layer " + std::to_string(change.layer) +
                  " in this model; expected " + in_quotes(place.tensor));
    }
    check_shapes(change, place);
    checkpoint.check(place.tensor, place.shape());
    checkpoint = over(checkpoint, change, place);
    places.emplace(place.tensor, place);
    by_tensor[place.tensor].push_back(&change);
  }
  for (const auto& [tensor, of_tensor] : by_tensor) {
    auto hashes = checkpoint.sha256(tensor, places.at(tensor).shape());
    hashes.erase(hashes.begin(), hashes.end() - static_cast<std::ptrdiff_t>(of_tensor.size()) - 1);  // earlier changes'
    for (std::size_t i = 0; i < of_tensor.size(); ++i) {
      const auto& change = *of_tensor[i];
      if (hashes[i] != change.sha256_before) {
        throw Error(where_of(change) + ": the edit was made for other weights: their SHA-256 is " + hashes[i] +
                    "; expected " + one_line(change.sha256_before));
      }
      if (hashes[i + 1] != change.sha256_after) {
        throw Error(where_of(change) + ": u and r do not lead to the weights that the edit says: their SHA-256 is " +
                    hashes[i + 1] + "; expected " + one_line(change.sha256_after) + "; is the file damaged?");
      }
    }
  }
  return checkpoint;
}

ChangedMatrix apply_change(const Checkpoint& checkpoint, const MatrixChange& change, const MatrixPlace& place) {
  check_shapes(change, place);
  const auto shape = place.shape();
  checkpoint.check(place.tensor, shape);
  const auto after = over(checkpoint, change, place);
  const auto hashes = after.sha256(place.tensor, shape);
  ChangedMatrix result;
  result.sha256_before = hashes[hashes.size() - 2];
  result.sha256_after = hashes.back();
  const auto step = std::max<std::int64_t>(1, (std::int64_t{1} << 20) / shape[1]);
  double original = 0, difference = 0;  // one after the other, so that no thread changes a digit
  for (std::int64_t begin = 0; begin < shape[0]; begin += step) {
    const auto end = std::min(begin + step, shape[0]);
    const auto before_rows = checkpoint.rows(place.tensor, shape, at::kDouble, begin, end).contiguous();
    const auto after_rows = after.rows(place.tensor, shape, at::kDouble, begin, end).contiguous();
    checkpoint.release(place.tensor, begin, end);
    const std::span was(before_rows.const_data_ptr<double>(), static_cast<std::size_t>(before_rows.numel()));
    const std::span is(after_rows.const_data_ptr<double>(), was.size());
    for (std::size_t i = 0; i < was.size(); ++i) {
      original += was[i] * was[i];
      difference += (is[i] - was[i]) * (is[i] - was[i]);
    }
  }
  if (!std::isfinite(difference)) {
    throw Error(where_of(change) + ": an element of the edited matrix is not finite in the file's dtype, " +
                checkpoint.stored(place.tensor).dtype + "; expected a smaller change, or weights of a wider dtype");
  }
  result.original_norm = std::sqrt(original);
  result.change_norm = std::sqrt(difference);
  return result;
}

}  // namespace rometrace
