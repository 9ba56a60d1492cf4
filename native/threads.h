// A persistent pool for loops of many small tasks.
//
// The calling thread is member 0 and works with the others. A loop's tasks are split into one
// contiguous range per member, so that each streams its own part of the weights in order; whoever
// finishes early takes tasks from the others. Completion is counted in tasks, not in members: a
// member that got no core claims nothing, and nobody waits for it. Between loops members spin for
// a short while (a step has hundreds of loops), then sleep until the next one.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

namespace salver {

// What each member does around its work: tile registers, floating-point mode.
struct ThreadHooks {
  void (*enter)() = nullptr;
  void (*leave)() = nullptr;
};

class ThreadPool {
 public:
  ThreadPool(int members, ThreadHooks hooks);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int members() const { return static_cast<int>(ranges_.size()); }

  // Runs body(task, member) for every task in [0, tasks), in any order, and returns when all are
  // done. Only the thread that owns the pool may call it, and not from inside a body.
  template <typename Body>
  void each(int tasks, const Body& body) {
    run(tasks, &body, [](const void* self, int task, int member) {
      (*static_cast<const Body*>(self))(task, member);
    });
  }

 private:
  using Call = void (*)(const void*, int, int);

  // next (low half) and end (high half) of the unclaimed tasks, in one word, so that a claim that
  // succeeds is always a claim on the loop that is running.
  struct alignas(64) Range {
    std::atomic<std::uint64_t> unclaimed{0};
  };

  void run(int tasks, const void* body, Call call);
  bool claim(int range, int* task);
  void work(int member);
  void serve(int member);
  bool wait_for_loop(std::uint32_t seen);

  ThreadHooks hooks_;
  std::vector<Range> ranges_;
  const void* body_ = nullptr;
  Call call_ = nullptr;
  alignas(64) std::atomic<int> unfinished_{0};
  alignas(64) std::atomic<std::uint32_t> loop_{0};
  std::atomic<int> sleepers_{0};
  std::atomic<bool> stopping_{false};
  std::vector<std::thread> threads_;
};

}  // namespace salver
