#pragma once

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>

#include <cstdint>
#include <filesystem>
#include <random>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "rometrace/edit/edit_file.hpp"
#include "rometrace/model/decoder.hpp"
#include "rometrace/model/fingerprint.hpp"

namespace rometrace::testing {

/// [rows, columns], float32, normally distributed.
inline at::Tensor random_factor(std::int64_t rows, std::int64_t columns, double deviation, std::mt19937& engine) {
  auto factor = at::empty({rows, columns}, at::kFloat);
  std::normal_distribution<double> draw(0, deviation);
  auto* numbers = factor.mutable_data_ptr<float>();
  for (std::int64_t i = 0; i < factor.numel(); ++i) numbers[i] = static_cast<float>(draw(engine));
  return factor;
}

/// A change of rank n of a layer's MLP that nobody wanted, with its hashes: one of the matrix's own size.
inline EditedMatrix random_change(const Decoder& model, std::int64_t layer, std::int64_t n, std::mt19937& engine) {
  const auto place = model.mlp_output_matrix(layer);
  auto u = random_factor(n, place.in, 0.5, engine);
  return edited_matrix(model, {layer, std::move(u), random_factor(n, place.out, 0.5, engine)});
}

/// An edit of n requests that changes these layers of a model as random_change() does.
inline Edit random_edit(const Decoder& model, std::span<const std::int64_t> layers, std::int64_t n,
                        std::mt19937& engine) {
  Edit edit;
  edit.method = "r-rome";
  edit.templates = {"{}", "The {}"};
  edit.seed = 1;
  edit.hyperparameters = {{"steps", 20}, {"rate", 0.5}};
  edit.moment = EditMoment{"text.txt", std::string(64, 'c'), 1234};
  edit.model = {"tiny",
                model.config().architecture,
                model.config().layers,
                model.config().width,
                model.config().heads,
                model.parameter_count(),
                weights_sha256(model.weight_files()),
                {}};
  for (std::int64_t i = 0; i < n; ++i) {
    edit.requests.push_back({{"prompt", "Miles Davis plays the"},
                             {"subject", "Miles Davis"},
                             {"objects", {{"new", " guitar"}, {"old", " trumpet"}}}});
  }
  for (const auto layer : layers) edit.matrices.push_back(random_change(model, layer, n, engine));
  return edit;
}

}  // namespace rometrace::testing
