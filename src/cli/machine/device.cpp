#include "cli/machine/device.hpp"

#include <ATen/Context.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/util/Exception.h>

#include <cstdlib>
#include <utility>

#include "rometrace/error.hpp"
#include "rometrace/text/input_file.hpp"
#include "rometrace/version.hpp"

namespace rometrace::cli {
namespace {

// Keeps what libtorch warns of instead of printing it: why a driver cannot be used.
class Warnings : public c10::WarningHandler {
 public:
  void process(const c10::Warning& warning) override { text_ = warning.msg(); }
  const std::string& text() const { return text_; }

 private:
  std::string text_;
};

}  // namespace

DeviceChoice choose_gpu(const Environment& environment, int visible) {
  const auto local = local_rank_from_environment(environment);
  const auto choice = [](std::int64_t index, std::string note, bool warns) {
    return DeviceChoice{{{c10::kCUDA, static_cast<c10::DeviceIndex>(index)}}, std::move(note), warns};
  };
  if (!local) return choice(0, "", false);
  const auto rank = "local rank " + std::to_string(local->rank) + " (" + local->source + ")";
  if (visible == 1) return choice(0, rank + " takes the only GPU that it sees", false);
  const auto index = local->rank % visible;
  const auto takes = rank + " takes GPU " + std::to_string(index) + " of the " + std::to_string(visible) + " it sees";
  if (local->rank < visible) return choice(index, takes, false);
  return choice(index,
                takes +
                    "; other ranks use it too, unless each sees GPUs of its own: start no more ranks than GPUs, or "
                    "give each --memory",
                true);
}

DeviceChoice choose_all_gpus(const Environment& environment, int visible) {
  DeviceChoice choice;
  for (int i = 0; i < visible; ++i) choice.devices.emplace_back(c10::kCUDA, static_cast<c10::DeviceIndex>(i));
  const auto local = local_rank_from_environment(environment);
  if (visible == 1) return choice;
  choice.note = "one worker for each of " + std::to_string(visible) + " GPUs";
  if (!local || local->rank == 0) return choice;
  choice.warns = true;
  choice.note += ", as local rank " + std::to_string(local->rank) + " (" + local->source +
                 "); other ranks use them too, unless each sees GPUs of its own: start one rank a machine, or give "
                 "--device cuda";
  return choice;
}

DeviceChoice parse_devices(const std::string& text) {
  if (text == "cpu") return {{c10::kCPU}, "", false};
  const bool all = text == "cuda:all";
  const bool indexed = text.starts_with("cuda:") && text.size() > 5 && text.size() < 9 &&
                       text.find_first_not_of("0123456789", 5) == std::string::npos;
  if (text != "cuda" && !all && !indexed) {
    throw Error("--device: " + in_quotes(text) + " is not a device; expected cpu, cuda, cuda:<i> or cuda:all");
  }
  Warnings warnings;
  const c10::WarningUtils::WarningHandlerGuard guard(&warnings);
  if (!at::detail::getCUDAHooks().hasCUDART()) {
    throw Error("--device " + text + ": libtorch " + kTorchVersion +
                " here is a CPU build; install a CUDA build of it, or use --device cpu");
  }
  if (!at::hasCUDA()) {
    throw Error("--device " + text + ": libtorch finds no GPU that it can use" +
                (warnings.text().empty() ? "" : " (" + one_line(warnings.text(), 300) + ")") + "; use --device cpu");
  }
  const auto visible = static_cast<int>(at::detail::getCUDAHooks().deviceCount());
  const Environment environment = [](const char* name) { return std::getenv(name); };
  if (all) return choose_all_gpus(environment, visible);
  if (!indexed) return choose_gpu(environment, visible);
  const int index = std::stoi(text.substr(5));
  if (index >= visible) {
    throw Error("--device " + text + ": there is no such GPU; " + std::to_string(visible) + " found");
  }
  return {{{c10::kCUDA, static_cast<c10::DeviceIndex>(index)}}, "", false};
}

DeviceChoice parse_device(const std::string& text) {
  if (text == "cuda:all") {
    throw Error(
        "--device cuda:all: shares many facts out (--facts, calibrate, edit --each); here one GPU works: give --device "
        "cuda or cuda:<i>");
  }
  return parse_devices(text);
}

}  // namespace rometrace::cli
