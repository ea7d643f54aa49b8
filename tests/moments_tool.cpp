// Test-only: reads a file of second moments and solves with one, so that tests in Python can compare with NumPy.
//   rometrace_moments FILE LAYER
// stdin: {"ridge": number, "keys": [[...], ...] (n keys of F numbers), "lambda": number}, or nothing to solve.
// stdout: {"layers": [...], "tokens": N, "mean": [[...], ...]} and, where there are keys, "solved" and
// "solved_with_keys" (n rows), "condition", "default_ridge" and "default_ridge_of_relu". Exit status: 0 read, 2 refused
// (the reason on stderr).

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/tensor.h>

#include <iostream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "rometrace/edit/moment_factor.hpp"
#include "rometrace/edit/moment_file.hpp"
#include "rometrace/error.hpp"
#include "tools.hpp"

namespace {

using nlohmann::json;

json rows_json(const at::Tensor& matrix) {
  json rows = json::array();
  const auto whole = matrix.contiguous();
  for (std::int64_t i = 0; i < whole.size(0); ++i) {
    const auto* begin = whole.const_data_ptr<double>() + i * whole.size(1);
    rows.push_back(std::vector<double>(begin, begin + whole.size(1)));
  }
  return rows;
}

void solve(const rometrace::SecondMoment& moment, const json& request, json& answer) {
  using rometrace::Activation;
  std::vector<at::Tensor> columns;
  for (const auto& key : request.at("keys")) columns.push_back(at::tensor(key.get<std::vector<double>>(), at::kDouble));
  const rometrace::MomentFactor factor(moment, request.at("ridge"));
  auto keys = at::empty({moment.width(), static_cast<std::int64_t>(columns.size())}, at::kDouble);
  json solved = json::array();
  for (std::size_t i = 0; i < columns.size(); ++i) {
    keys.select(1, static_cast<std::int64_t>(i)).copy_(columns[i]);
    solved.push_back(rows_json(factor.solve(columns[i]).unsqueeze(0))[0]);
  }
  answer["solved"] = solved;
  answer["solved_side_by_side"] = rows_json(factor.solve(keys).t());
  answer["solved_with_keys"] = rows_json(factor.solve_with_keys(request.at("lambda"), keys).t());
  answer["condition"] = factor.condition();
  answer["default_ridge"] = rometrace::default_ridge(moment, Activation::kGeluTanh);
  answer["default_ridge_of_relu"] = rometrace::default_ridge(moment, Activation::kRelu);
}

}  // namespace

int rometrace::testing::moments(int argc, char** argv) {
  if (argc != 3) {
    std::cerr << "usage: rometrace_moments FILE LAYER\n";
    return 2;
  }
  try {
    const std::string request{std::istreambuf_iterator<char>(std::cin), {}};
    const auto file = MomentFile::open(argv[1]);
    const auto moment = file.read(std::stoll(argv[2]));
    json answer = {{"layers", file.layers()}, {"tokens", moment.tokens}, {"mean", rows_json(moment.mean)}};
    if (!request.empty()) solve(moment, json::parse(request), answer);
    std::cout << answer.dump() << '\n';
  } catch (const Error& error) {
    std::cerr << error.what() << '\n';
    return 2;
  }
  return 0;
}
