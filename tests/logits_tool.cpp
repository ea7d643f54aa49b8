// Test-only: what models make of a prompt, so that tests in Python can compare many of them with transformers.
//   rometrace_logits ID ...
// stdin: model folders, one a line. stdout, one JSON line a folder: {"logits": [T][V], in float32, "remarks": of its
// config} or {"refused": the reason}. Exit status: 0.

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>

#include <iostream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "rometrace/error.hpp"
#include "rometrace/model/decoder.hpp"
#include "tools.hpp"

namespace {

nlohmann::json answer(const std::string& folder, const std::vector<std::int32_t>& ids) {
  const auto model = rometrace::Decoder::load(folder);
  const auto logits = model->logits(model->forward(ids, 1))[0].contiguous();
  std::vector<std::vector<float>> rows;
  for (std::int64_t t = 0; t < logits.size(0); ++t) {
    const auto* row = logits.data_ptr<float>() + t * logits.size(1);
    rows.emplace_back(row, row + logits.size(1));
  }
  return {{"logits", rows}, {"remarks", model->config().remarks}};
}

}  // namespace

int rometrace::testing::logits(int argc, char** argv) {
  const at::NoGradGuard no_grad;
  at::set_num_threads(1);
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  std::vector<std::int32_t> ids;
  for (const auto& argument : arguments) ids.push_back(std::stoi(argument));
  for (std::string folder; std::getline(std::cin, folder);) {
    nlohmann::json line;
    try {
      line = answer(folder, ids);
    } catch (const rometrace::Error& error) {
      line = {{"refused", error.what()}};
    }
    std::cout << line.dump() << '\n';
  }
  return 0;
}
