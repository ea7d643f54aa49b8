#include "cli/machine/device.hpp"

#include <map>
#include <string>

#include "checks.hpp"
#include "rometrace/error.hpp"

namespace rometrace::cli::device_test {
namespace {

using rometrace::testing::Contains;
using rometrace::testing::message_of;

// The environment of local rank `rank` of srun, or of no launcher.
Environment of_rank(const std::string& rank) {
  return [rank](const char* name) {
    return !rank.empty() && std::string(name) == "SLURM_LOCALID" ? rank.c_str() : nullptr;
  };
}

int gpu_of(const std::string& rank, int visible) {
  const auto choice = choose_gpu(of_rank(rank), visible);
  REQUIRE(choice.devices.size() == 1);
  CHECK(choice.devices.front().is_cuda());
  return choice.devices.front().index();
}

TEST_CASE("a process that no launcher started takes the first GPU, without a word") {
  for (const int visible : {1, 8}) {
    CHECK(gpu_of("", visible) == 0);
    CHECK(choose_gpu(of_rank(""), visible).note.empty());
  }
}

TEST_CASE("a local rank takes the GPU of its number") {
  for (int rank = 0; rank < 8; ++rank) {
    const auto choice = choose_gpu(of_rank(std::to_string(rank)), 8);
    CHECK(choice.devices.front().index() == rank);
    CHECK_FALSE(choice.warns);
    CHECK(choice.note == "local rank " + std::to_string(rank) + " (SLURM_LOCALID) takes GPU " + std::to_string(rank) +
                             " of the 8 it sees");
  }
}

TEST_CASE("a local rank that sees one GPU, as each does where the launcher binds them, takes that one") {
  for (const char* rank : {"0", "1", "7"}) {
    CHECK(gpu_of(rank, 1) == 0);
    const auto choice = choose_gpu(of_rank(rank), 1);
    CHECK_FALSE(choice.warns);
    CHECK(choice.note == Contains("takes the only GPU that it sees"));
  }
}

TEST_CASE("local ranks beyond the last GPU begin again with the first one, and warn") {
  CHECK(gpu_of("4", 4) == 0);
  CHECK(gpu_of("5", 4) == 1);
  CHECK(gpu_of("11", 4) == 3);
  CHECK(gpu_of("1000000000000", 3) == 1);
  const auto choice = choose_gpu(of_rank("5"), 4);
  CHECK(choice.warns);
  CHECK(choice.note == Contains("local rank 5 (SLURM_LOCALID) takes GPU 1 of the 4 it sees; other ranks use it too"));
}

TEST_CASE("cuda:all is every GPU that is visible, and warns where other ranks may take them as well") {
  const auto all = choose_all_gpus(of_rank(""), 3);
  REQUIRE(all.devices.size() == 3);
  for (int i = 0; i < 3; ++i)
    CHECK(all.devices[static_cast<std::size_t>(i)] == c10::Device(c10::kCUDA, static_cast<c10::DeviceIndex>(i)));
  CHECK_FALSE(all.warns);
  CHECK(all.note == "one worker for each of 3 GPUs");
  CHECK_FALSE(choose_all_gpus(of_rank("0"), 3).warns);
  CHECK(choose_all_gpus(of_rank("2"), 3).warns);
  CHECK(choose_all_gpus(of_rank("2"), 3).note == Contains("local rank 2 (SLURM_LOCALID)"));
  CHECK_FALSE(choose_all_gpus(of_rank("2"), 1).warns);  // a GPU of its own
}

TEST_CASE("what is no device is refused, and cuda:all where there are no facts to share") {
  CHECK(parse_device("cpu").devices == std::vector<c10::Device>{c10::kCPU});
  CHECK(parse_devices("cpu").devices == std::vector<c10::Device>{c10::kCPU});
  for (const char* text : {"", "gpu", "cuda:", "cuda:x", "cuda:-1", "cuda:1234", "cuda: 0", "CUDA", "cuda:all,cpu"}) {
    CHECK(message_of<Error>([&] { parse_devices(text); }) == Contains("expected cpu, cuda, cuda:<i> or cuda:all"));
  }
  CHECK(message_of<Error>([] { parse_device("cuda:all"); }) == Contains("give --device cuda or cuda:<i>"));
}

}  // namespace
}  // namespace rometrace::cli::device_test
