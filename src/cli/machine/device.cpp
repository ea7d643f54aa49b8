#include "cli/machine/device.hpp"

#include <ATen/Context.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/util/Exception.h>

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

c10::Device parse_device(const std::string& text) {
  if (text == "cpu") return c10::kCPU;
  const bool indexed = text.starts_with("cuda:") && text.size() > 5 && text.size() < 9 &&
                       text.find_first_not_of("0123456789", 5) == std::string::npos;
  if (text != "cuda" && !indexed) {
    throw Error("--device: " + in_quotes(text) + " is not a device; expected cpu, cuda or cuda:<i>");
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
  const int index = indexed ? std::stoi(text.substr(5)) : 0;
  const auto count = static_cast<int>(at::detail::getCUDAHooks().deviceCount());
  if (index >= count) {
    throw Error("--device " + text + ": there is no such GPU; " + std::to_string(count) + " found");
  }
  return {c10::kCUDA, static_cast<c10::DeviceIndex>(index)};
}

}  // namespace rometrace::cli
